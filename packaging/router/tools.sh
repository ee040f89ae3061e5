#!/usr/bin/env bash
# Brings what a router build needs into TOOLS (a folder of ours; Debian's packages aside): Rust with the source of its standard
# library, a C compiler that knows every target (zig), qemu to run the result. Says exactly what is missing where it may not.
set -eu
tools=$1
rust=/usr/bin/rustc
source=/usr/lib/rustlib/src/rust/library/Cargo.lock

packages=()
{ [ -x "$rust" ] && [ -x /usr/bin/cargo ] && [ -f "$source" ]; } || packages+=(rustc-web cargo-web rust-web-src)
command -v qemu-mips-static >/dev/null || packages+=(qemu-user-static)
/usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v readelf >/dev/null || packages+=(binutils)
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "router: missing packages; as root on Debian 12: apt-get install ${packages[*]}" >&2
        exit 1
    fi
    echo "router: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends -y "${packages[@]}")
    "${install[@]}" >/dev/null 2>&1 || { apt-get -qq update && "${install[@]}" >/dev/null; }
fi

mkdir -p "$tools/bin"
# Not a later zig (docs/decisions/0034): its own malloc writes zeros where musl's knows that the kernel did, and spa-tunnel, which asks for
# 26 MB it may never use, would hold all of them.
case $("$tools/bin/zig" version 2>/dev/null) in 0.15.*) have=1 ;; *) have= ;; esac
if [ -z "$have" ] || [ ! -x "$tools/bin/cargo-zigbuild" ]; then
    echo "router: installing zig 0.15 and cargo-zigbuild 0.24 (PyPI)"
    /usr/bin/python3 -m venv "$tools/python"
    "$tools/python/bin/pip" -q install 'ziglang>=0.15.2,<0.16' 'cargo-zigbuild>=0.24,<0.25'
    printf '#!/bin/sh\nexec "%s" -m ziglang "$@"\n' "$tools/python/bin/python" >"$tools/bin/zig"
    chmod +x "$tools/bin/zig"
    ln -sf "$tools/python/bin/cargo-zigbuild" "$tools/bin/cargo-zigbuild"
    # What another zig compiled goes: cargo does not see the difference.
    rm -rf "${tools%/*}"/*-linux-musl*
fi
