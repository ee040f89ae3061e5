#!/usr/bin/env bash
# Everything that proves the project, in the order in which it fails fastest. One profile; each step says its time.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
export PATH="$PATH:/usr/sbin:/sbin"

if [ "$(id -u)" -ne 0 ]; then
    echo "test: network namespaces need root: run \`sudo -E env PATH=\"\$PATH\" make test\`" >&2
    exit 1
fi

step() {
    local name=$1 begun=$SECONDS
    shift
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - begun)) s"
}

# The enforcer is the only program with CAP_NET_ADMIN: its dependencies are few enough to read, and none of these kinds.
pure_enforcer() {
    local tree
    tree=$("$cargo" tree --locked -p spa-enforcer -e normal --prefix none | sed 's/ .*//' | sort -u)
    if grep -E '^(tokio|async-|futures|mio|axum|hyper|toml|serde|chacha20|aes|cipher|aead|argon2|ed25519|x25519|curve25519|hmac|hkdf|sha1|sha2|ml-kem|spa-proto|spa-gateway|rusqlite)' <<<"$tree"; then
        echo "spa-enforcer links the crates above; it may have no cipher, TOML or async crate" >&2
        return 1
    fi
    echo "spa-enforcer: $(wc -l <<<"$tree") crates, no cipher, TOML or async among them"
}

vectors() {
    # The whole workspace is selected everywhere, so that every crate it shares is built once.
    "$cargo" build --locked -q --workspace --bin check-vectors
    local check=${CARGO_TARGET_DIR:-target}/debug/check-vectors
    "$check" tests/vectors
    "$check" tests/vectors/negative
    if [ -d ../shared/vectors ]; then
        "$check" ../shared/vectors
    else
        echo "SKIPPED: ../shared/vectors is not here; its copy tests/vectors was checked"
    fi
}

every_test() {
    # A test of the whole mostly waits, in a town of its own: twice the processors keep a machine busy and its timings honest.
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(( $(nproc) * 2 ))} "$cargo" test --locked -q --workspace --no-default-features
}

# What a router runs: the same table, written without libnftnl. Before all the others, which need the usual one built last.
plain_netlink() {
    "$cargo" test --locked -q --workspace --no-default-features --features spa-enforcer/plain-netlink --test live
}

step "format" "$cargo" fmt --all --check
step "enforcer's dependencies" pure_enforcer
step "vectors" vectors
step "build" make --no-print-directory build
step "enforcer without libnftnl" plain_netlink
step "every test: units, components, the tree, end to end" every_test
step "instruction counts" tests/tools/instructions.sh
step "clippy" "$cargo" clippy --locked -q --workspace --all-targets -- -D warnings
step "clippy without libnftnl" "$cargo" clippy --locked -q --workspace --features spa-enforcer/plain-netlink --bin spa-enforcer -- -D warnings
echo "All of it holds, $SECONDS s."
