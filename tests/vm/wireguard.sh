#!/bin/sh
# Holds the kernel's WireGuard to the promises the embedded one is tested for.
# Needs root and a kernel with WireGuard, for instance a virtual machine that sees this file system.
# usage: wireguard.sh [TEST-BINARY]     default: builds spa-tunnel's test `interface` and runs that
set -eu
modprobe wireguard 2>/dev/null || [ -d /sys/module/wireguard ] || {
    echo "wireguard.sh: this kernel has no WireGuard" >&2
    exit 1
}
export SPA_TEST_BACKEND=kernel
if [ $# -gt 0 ]; then
    exec "$1" --nocapture
fi
cd "$(dirname "$0")/../.."
exec cargo test -p spa-tunnel --test interface -- --nocapture
