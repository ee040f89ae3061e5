#!/usr/bin/env bash
# build.sh [ARCHITECTURE]: static programs for a router, and the proof that what decides is right on its processor.
# x86_64, aarch64, armv7, mipsel or mips; none: all of them, one after the other. BUILD_ONLY=1 leaves the tests out.
#
# No rustup target and no cross compiler is needed: Debian's Rust brings the source of its standard library, which is built along, and
# zig brings a C compiler, a linker and musl for every processor. The only C in the programs is SQLite (and ring in spa-tunnel).
set -eu
cd "$(dirname "$0")/../.."

all=(x86_64 aarch64 armv7 mipsel mips)
case ${1:-} in
    "") architectures=("${all[@]}") ;;
    x86_64 | aarch64 | armv7 | mipsel | mips) architectures=("$1") ;;
    *) echo "router: TARGET=$1 is none of ${all[*]}" >&2; exit 2 ;;
esac

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/router
tools=$target_dir/tools
packaging/router/tools.sh "$tools"

# Debian's Rust and not rustup's: only it has the source that fits. Nightly options on a stable compiler, for -Zbuild-std alone.
export PATH=$tools/bin:/usr/bin:/bin:/usr/sbin:/sbin CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export CARGO_ZIGBUILD_ZIG_PATH=$tools/bin/zig CARGO_TARGET_DIR=$target_dir
unset RUSTUP_TOOLCHAIN
# Nothing unwinds in a program that aborts, and its tables are a tenth of it.
programs_flags="-Ctarget-feature=+crt-static -Clink-self-contained=no -Cforce-unwind-tables=no"
tests_flags="-Ctarget-feature=+crt-static -Clink-self-contained=no"
jobs=${JOBS:-$(nproc)}
# Gateway, admin and enforcer, stripped, bytes, on aarch64: 6 MiB.
budget=6291456

triple_of() {
    case $1 in
        armv7) echo armv7-unknown-linux-musleabihf ;;
        *) echo "$1-unknown-linux-musl" ;;
    esac
}

# The embedded WireGuard counts with 64-bit atomics, which MIPS does not have: there it is the kernel's or none.
tunnel_of() {
    case $1 in
        mips | mipsel) ;;
        *) echo spa-tunnel ;;
    esac
}

# What runs its programs here; nothing where this is the processor.
qemu_of() {
    case $1 in
        "$(uname -m)") ;;
        armv7) echo qemu-arm-static ;;
        *) echo "qemu-$1-static" ;;
    esac
}

# One by one, so that none is built with what another asks of a crate they share.
programs() {
    local architecture=$1 triple=$2 package
    for package in spa-gateway spa-enforcer $(tunnel_of "$architecture") spa-client; do
        local which=(-p "$package")
        # Under the name spa-admin it is that (docs/decisions/0028).
        [ "$package" != spa-gateway ] || which+=(--bin spa-gateway --features spa-admin)
        RUSTFLAGS=$programs_flags cargo-zigbuild zigbuild -q --locked -j "$jobs" --profile router --target "$triple" \
            -Zbuild-std=std,panic_abort "${which[@]}"
    done
}

# Refuses what would not run on a router: a program that asks for a loader or a library.
check_static() {
    local program=$1
    if LC_ALL=C readelf -ld "$program" | grep -E 'INTERP|NEEDED'; then
        echo "router: $program is not static" >&2
        exit 1
    fi
}

# Puts them where packages and images take them from, and says what they weigh.
gather() {
    local architecture=$1 built=$target_dir/$2/router out=$target_dir/programs/$1 name size sum=0
    mkdir -p "$out"
    for name in spa-gateway spa-enforcer $(tunnel_of "$architecture") spa; do
        check_static "$built/$name"
        install -m 0755 "$built/$name" "$out/$name"
        size=$(stat -c %s "$built/$name")
        printf '%-8s %-12s %9d bytes\n' "$architecture" "$name" "$size"
        case $name in spa-gateway | spa-enforcer) sum=$((sum + size)) ;; esac
    done
    ln -sf spa-gateway "$out/spa-admin"
    printf '%-8s %-12s %9d bytes: gateway, admin (the same file) and enforcer, of %d\n' "$architecture" together "$sum" "$budget"
    [ "$architecture" != aarch64 ] || [ "$sum" -le "$budget" ] || { echo "router: that is more than a router is asked for" >&2; exit 1; }
    # It starts on that processor, under either name.
    $(qemu_of "$architecture") "$out/spa-gateway" --version
    $(qemu_of "$architecture") "$out/spa-admin" --version
}

# The wire and all behaviour, on that processor: unit tests and vectors, under qemu where it is not this one.
proof() {
    local triple=$1 variable qemu
    qemu=$(qemu_of "$2")
    variable=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$triple")_RUNNER
    [ -z "$qemu" ] || export "$variable=$qemu"
    # `test` said in either: without it the second would build every crate again, against a standard library without it.
    RUSTFLAGS=$tests_flags cargo-zigbuild test -q --locked -j "$jobs" --profile router-test --target "$triple" -Zbuild-std=std,panic_abort,test \
        -p spa-proto -p spa-gateway-core --features spa-proto/client,spa-proto/vectors,spa-gateway-core/vectors
    RUSTFLAGS=$tests_flags cargo-zigbuild zigbuild -q --locked -j "$jobs" --profile router-test --target "$triple" -Zbuild-std=std,panic_abort,test \
        -p spa-tests --bin check-vectors
    for vectors in tests/vectors tests/vectors/negative; do $qemu "$target_dir/$triple/router-test/check-vectors" "$vectors"; done
}

for architecture in "${architectures[@]}"; do
    triple=$(triple_of "$architecture")
    echo "== $architecture: programs"
    programs "$architecture" "$triple"
    gather "$architecture" "$triple"
    if [ -z "${BUILD_ONLY:-}" ]; then
        echo "== $architecture: unit tests and vectors"
        proof "$triple" "$architecture"
    fi
    echo "== $architecture: $target_dir/programs/$architecture"
done
