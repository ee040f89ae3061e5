#!/usr/bin/env bash
# The Debian packages where they are to run: on a fresh Debian with a systemd of its own. Installed, set up in three questions, knocked at,
# upgraded and removed under an open session, purged. On this machine's kernel first, in a minute; then on Debian's, which has WireGuard and
# AppArmor, in a throw-away virtual machine, which is emulated and takes four minutes more, and longer on a busy one. VM=0 leaves that out.
# usage: debian.sh PACKAGES     with the packages of `make deb`, and in PACKAGES/next the same with a higher revision
set -euo pipefail
packages=$(readlink -f "$1")
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/sbin:/sbin"

skip() {
    echo "SKIPPED: the Debian packages were not tried: $1" >&2
    exit 0
}
[ "$(id -u)" -eq 0 ] || skip "it takes root"
for tool in debootstrap curl busybox nsenter; do
    command -v "$tool" >/dev/null || skip "no $tool here; as root: apt-get install debootstrap curl busybox-static util-linux"
done
target=$(readlink -f "${CARGO_TARGET_DIR:-target}")

# What a gateway's machine has in any case, and what the packages depend on: the machines of the test have no network.
base=$target/debian-base
if [ ! -e "$base/done" ]; then
    rm -rf "$base"
    mkdir -p "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,nftables,iproute2,apparmor,libcap2-bin \
        bookworm "$base/root" >"$base/log" 2>&1 || skip "debootstrap did not come through, see $base/log"
    touch "$base/done"
fi
"${CARGO:-cargo}" build --locked -q --workspace --no-default-features --bin spa-phone
machines=(tests/packages/debian-machines.sh "$base/root" "$packages" "$target/debug/spa-phone")
bash "${machines[@]}"

vm() { echo "SKIPPED: the Debian packages on the kernel's WireGuard: $1" >&2; exit 0; }
[ "${VM:-1}" != 0 ] || vm "VM=0"
[ "$(uname -m)" = x86_64 ] || vm "only on x86_64"
command -v qemu-system-x86_64 >/dev/null || vm "no qemu here; as root: apt-get install qemu-system-x86 qemu-system-common busybox-static"
VM_CACHE=${VM_CACHE:-$target/vm} exec tests/vm/run-in-vm.sh --timeout "${VM_TIMEOUT:-3600}" --mem 3072 "${machines[@]}"
