#!/usr/bin/env bash
# Inside the virtual machine: what the kernel must have, then the program given, on the kernel's WireGuard.
set -eu
for module in wireguard nf_tables nf_conntrack_netlink veth tun 8021q; do
    modprobe "$module" || { echo "guest: this kernel has no $module" >&2; exit 1; }
done
echo "guest: Linux $(uname -r) with WireGuard"
export SPA_TEST_BACKEND=kernel
# Emulated, all takes some times as long.
export SPA_TEST_SLOWNESS=${SPA_TEST_SLOWNESS:-4}
cd /tmp
exec "$@"
