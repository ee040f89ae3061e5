#!/usr/bin/env bash
# Brings a Debian machine to where the build and the tests can run; says exactly what is missing where it may not.
# usage: setup.sh [COMMAND:PACKAGE…]     what is needed besides
set -eu

# What must be there, and the package it comes from.
commands=(cc:gcc pkg-config:pkg-config ip:iproute2 nft:nftables conntrack:conntrack valgrind:valgrind iperf3:iperf3 "$@")
libraries=(libnftnl:libnftnl-dev libmnl:libmnl-dev)

# nft and ip live where a plain user's PATH does not look.
export PATH="$PATH:/usr/sbin:/sbin"
missing=()
for need in "${commands[@]}"; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
for need in "${libraries[@]}"; do
    command -v pkg-config >/dev/null && pkg-config --exists "${need%%:*}" || missing+=("${need##*:}")
done

if ! command -v cargo >/dev/null; then
    echo "setup: no Rust here; install it with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "setup: missing packages; as root: apt-get install ${missing[*]}" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "setup: no apt-get here; install what Debian calls: ${missing[*]}" >&2
    exit 1
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install=(apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends -y "${missing[@]}")
# A machine that has never updated knows no packages; one that has needs no second look.
"${install[@]}" >/dev/null 2>&1 || { apt-get -qq update && "${install[@]}" >/dev/null; }
