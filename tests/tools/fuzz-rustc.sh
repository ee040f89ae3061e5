#!/usr/bin/env bash
# rustc for `make fuzz`: coverage and compared values in everything but ciphers and big numbers. Their inner loops have no branch on
# a byte to find, and counting them made a run of the simulator twice as long.
rustc=$1
shift
name=
target=
previous=
for argument in "$@"; do
    case $previous in
        --crate-name) name=$argument ;;
        --target) target=$argument ;;
    esac
    previous=$argument
done
case $name in
    curve25519_dalek | ed25519_dalek | x25519_dalek | fiat_crypto | sha1 | sha2 | sha3 | keccak | shake | hmac | hkdf | digest | block_buffer | chacha20 | \
        chacha20poly1305 | poly1305 | universal_hash | cipher | aead | argon2 | blake2 | ml_kem | module_lattice | hybrid_array | typenum | subtle | zeroize | ring)
        target= ;;
esac
# Not for what runs while building: build scripts and macros.
[ -n "$target" ] || exec "$rustc" "$@"
exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
