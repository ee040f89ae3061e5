#!/usr/bin/env bash
# Measures every budget on this machine, the incumbents beside it: prints a table, writes target/bench.json.
# QUICK=1 stays below five minutes after the build; SECTIONS="accept flood" measures a part.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
export PATH="$PATH:/usr/sbin:/sbin"
boringtun=0.7.1

if [ "$(id -u)" -ne 0 ]; then
    echo "bench: network namespaces need root: run \`sudo -E env PATH=\"\$PATH\" make bench\`" >&2
    exit 1
fi

# The incumbents, and what measures throughput. Without them their rows are skipped, and the table says so.
peers=(fwknopd:fwknop-server fwknop:fwknop-client iptables:iptables wireguard-go:wireguard-go iperf3:iperf3 wg:wireguard-tools)
missing=()
for peer in "${peers[@]}"; do
    command -v "${peer%%:*}" >/dev/null || missing+=("${peer##*:}")
done
if [ ${#missing[@]} -gt 0 ] && command -v apt-get >/dev/null; then
    echo "bench: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends -y "${missing[@]}")
    "${install[@]}" >/dev/null 2>&1 || { apt-get -qq update && "${install[@]}" >/dev/null 2>&1; } ||
        echo "bench: could not install ${missing[*]}; their rows are skipped" >&2
fi

# boringtun is no package of Debian's: it is built once, beside our own build, where crates.io can be reached.
others=${CARGO_TARGET_DIR:-target}/others
export PATH="$PATH:$(realpath -m "$others")/bin"
if ! command -v boringtun-cli >/dev/null; then
    echo "bench: building boringtun-cli $boringtun, once"
    CARGO_TARGET_DIR=$others/build "$cargo" install -q --locked --root "$others" "boringtun-cli@$boringtun" ||
        echo "bench: could not build boringtun-cli; its rows are skipped" >&2
    rm -rf "$others/build"
fi

# The programs one by one, as they are released; then what measures them.
for package in spa-gateway spa-enforcer spa-tunnel spa-client; do
    "$cargo" build --locked -q --release -p "$package"
done
"$cargo" build --locked -q --release -p spa-tests --bin spa-phone
"$cargo" build --locked -q --release -p spa-bench
exec "${CARGO_TARGET_DIR:-target}/release/spa-bench"
