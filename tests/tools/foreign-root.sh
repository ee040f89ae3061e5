#!/usr/bin/env bash
# A machine of its own for programs that would change this one: what is installed here, with these packages besides, under DIR/root.
# Runs in a mount namespace of its own and stays until it is ended; `nsenter --mount --target PID chroot DIR/root …` runs in it.
# Says "ready", or one line with SKIPPED where the packages cannot be had.
set -eu
dir=$1
shift
skip() { echo "SKIPPED, NOT PASSED: $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "a root of its own needs root"
command -v apt-get >/dev/null && command -v dpkg >/dev/null || skip "no apt here"
mkdir -p "$dir"/{debs/partial,upper,work,root}
apt-get -q -y -o DPkg::Lock::Timeout=120 --no-install-recommends --download-only -o Dir::Cache::archives="$dir/debs" install "$@" >"$dir/apt.log" 2>&1 ||
    skip "apt-get cannot download $*"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root" 2>/dev/null || skip "no overlay file system here"
mount --rbind /proc "$dir/root/proc"
mount -t sysfs sysfs "$dir/root/sys"
mount --rbind /dev "$dir/root/dev"
mount -t tmpfs tmpfs "$dir/root/run"
mkdir -p "$dir/root/run/dbus" "$dir/root/debs"
mount --bind "$dir/debs" "$dir/root/debs"
# Nothing is started by being installed.
printf '#!/bin/sh\nexit 101\n' >"$dir/root/usr/sbin/policy-rc.d"
chmod 755 "$dir/root/usr/sbin/policy-rc.d"
if compgen -G "$dir/debs/*.deb" >/dev/null; then
    DEBIAN_FRONTEND=noninteractive chroot "$dir/root" sh -c 'dpkg -i /debs/*.deb' >"$dir/dpkg.log" 2>&1 || skip "dpkg cannot install $*"
fi
echo ready
exec sleep 600
