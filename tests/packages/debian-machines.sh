#!/usr/bin/env bash
# Three machines in namespaces, of which gateway and client are fresh Debians, each with a systemd of its own; and the life of the
# packages on them. Needs root. Started by debian.sh, here and again in a virtual machine, where the kernel has WireGuard.
# usage: debian-machines.sh BASE PACKAGES PHONE
#
#   client 198.51.100.20 ── wan ── 198.51.100.10 gateway 10.0.5.1 ── lan ── 10.0.5.10 server
set -euo pipefail
base=$1 packages=$2 phone=$3
public=198.51.100.10
work=$(mktemp -d /tmp/spa-packages.XXXXXX)
name=spapkg$$
export PATH="$PATH:/usr/sbin:/sbin"

step() { echo "debian: $*"; }
fail() {
    echo "debian: FAILED: $*" >&2
    {
        gateway systemctl --no-pager list-jobs
        gateway systemctl --no-pager status spa-gateway spa-gateway-dark
        gateway journalctl --no-pager -n 60
        client spa status
        dmesg | grep "apparmor=.DENIED" | tail -n 20
        tail -n 20 "$work"/*.console
    } >&2 || true
    exit 1
}
# eventually WHAT COMMAND…: waits for it, some minutes at most on a slow machine.
eventually() {
    local what=$1 try
    shift
    for try in $(seq 120); do
        if "$@" >"$work/try" 2>&1; then return 0; fi
        sleep 0.5
    done
    cat "$work/try" >&2
    fail "$what (looked $try times)"
}
cleanup() {
    local space pid
    for space in gateway client server; do
        for pid in $(ip netns pids $name-$space 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
        ip netns delete $name-$space 2>/dev/null || true
    done
    for _ in $(seq 50); do
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -e "$cgroup" ] || break
        sleep 0.1
    done
    rm -rf "$work"
}
# Told to `boot`, which sees another /sys: `ip netns exec` mounts its own.
cgroups=2 cgroup=/sys/fs/cgroup/$name
[ -e /sys/fs/cgroup/cgroup.controllers ] || cgroups=1 cgroup=/sys/fs/cgroup/systemd/$name
trap cleanup EXIT

wireguard=embedded
if modprobe wireguard 2>/dev/null || [ -d /sys/module/wireguard ]; then wireguard=kernel; fi
modprobe -a nf_tables nf_conntrack_netlink veth overlay tun 2>/dev/null || true

step "three machines, WireGuard: $wireguard"
for space in gateway client server; do ip netns add $name-$space && ip -n $name-$space link set lo up; done
ip link add wan netns $name-client type veth peer name eth0 netns $name-gateway
ip link add eth1 netns $name-gateway type veth peer name lan netns $name-server
for address in client:198.51.100.20/24:wan gateway:$public/24:eth0 gateway:10.0.5.1/24:eth1 server:10.0.5.10/24:lan; do
    IFS=: read -r space address link <<< "$address"
    ip -n "$name-$space" address add "$address" dev "$link"
    ip -n "$name-$space" link set "$link" up
done
# `init` proposes the interface of the default route.
ip -n $name-gateway route add default via 198.51.100.20
mkdir "$work/www"
echo 'the wiki' > "$work/www/index.html"
ip netns exec $name-server busybox httpd -h "$work/www" -p 10.0.5.10:8080

# What an ordinary machine finds in /dev, and no disk of this one's.
devices() {
    mount -t tmpfs tmpfs "$1/dev"
    local node
    mkdir "$1/dev/net" "$1/dev/pts" "$1/dev/shm"
    for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
        mknod -m 0666 "$1/dev/${node%%:*}" c "$(cut -d: -f2 <<< "$node")" "${node##*:}"
    done
    mount -t devpts devpts "$1/dev/pts"
    ln -s /proc/self/fd "$1/dev/fd"
}
# boot MACHINE: with its own copy of the Debian that was installed once.
boot() {
    local root=$work/$1
    mount --make-rprivate /
    mount -t overlay -o "lowerdir=$base,upperdir=$root.up,workdir=$root.work" overlay "$root"
    mkdir "$root/packages"
    mount --bind "$packages" "$root/packages"
    devices "$root"
    mount -t proc proc "$root/proc"
    # The kernel is not this machine's alone: of its switches only those of its network can be turned.
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount --bind /proc/sys/net "$root/proc/sys/net"
    mount -t sysfs -o ro sys "$root/sys"
    mount -t securityfs securityfs "$root/sys/kernel/security" 2>/dev/null || true
    if [ "$cgroups" = 2 ]; then
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    else
        mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
        mkdir "$root/sys/fs/cgroup/systemd"
        mount -t cgroup -o none,name=systemd,xattr cgroup "$root/sys/fs/cgroup/systemd"
    fi
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    # Not chroot alone: to AppArmor a path begins at the root of the mounts.
    cd "$root"
    pivot_root . .
    umount -l .
    exec env -i container=spa-test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --log-target=null
}
mkdir "$work"/{gateway,gateway.up,gateway.work,client,client.up,client.work}
mkdir "$cgroup"
export -f boot devices
export work base packages cgroups
for machine in gateway client; do
    mkdir "$cgroup/$machine"
    (
        echo $BASHPID > "$cgroup/$machine/cgroup.procs"
        exec ip netns exec $name-$machine unshare --mount --pid --cgroup --uts --ipc --fork bash -c "boot $machine" >"$work/$machine.console" 2>&1
    ) &
    disown
done
# named MACHINE PROGRAM: its processes of this name, the first of them first.
named() { ip netns pids "$name-$1" | sort -n | while read -r pid; do [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$2" ] || echo "$pid"; done; }
find_first() { named "$1" systemd | head -1 > "$work/$1.first" && [ -s "$work/$1.first" ]; }
# on MACHINE COMMAND…: as root there.
on() {
    local machine=$1
    shift
    nsenter -t "$(cat "$work/$machine.first")" -m -p -C -u -i -n -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}
gateway() { on gateway "$@"; }
# On ana's laptop, as ana.
client() { on client setpriv --reuid 1000 --regid 1000 --clear-groups env PATH=/usr/local/bin:/usr/bin:/bin HOME=/home/ana XDG_RUNTIME_DIR=/run/user/1000 "$@"; }
for machine in gateway client; do
    eventually "systemd does not start" find_first $machine
    eventually "systemd does not come up" on $machine systemctl is-active multi-user.target
done

# Everything on the gateway but what other programs write while it runs.
listing() {
    gateway find / -xdev \( -path /packages -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /var/lib/systemd -o -path /proc -o -path /sys \
        -o -path /dev -o -path /run -o -path /tmp -o -name '*-' \) -prune -o -print | LC_ALL=C sort
}
accounts() { gateway cat /etc/passwd /etc/group; }
listing > "$work/before"
accounts > "$work/accounts.before"

step "installed"
gateway sh -c 'dpkg -i /packages/spa-gateway_*.deb /packages/spa-tunnel_*.deb' > "$work/dpkg" 2>&1 || fail "dpkg -i: $(cat "$work/dpkg")"
on client sh -c 'dpkg -i /packages/spa-client_*.deb /packages/spa-tunnel_*.deb' > "$work/dpkg" 2>&1 || fail "dpkg -i: $(cat "$work/dpkg")"
on client useradd --create-home --uid 1000 ana
on client setcap cap_net_admin+ep /usr/bin/spa
# Ana has logged in, as far as systemd knows.
on client loginctl enable-linger ana
eventually "systemd has no manager for ana" client test -e /run/user/1000/systemd/private
grep -q 'next, as root: spa-admin init' <(gateway sh -c 'dpkg-reconfigure -u spa-gateway 2>/dev/null; /var/lib/dpkg/info/spa-gateway.postinst configure') || fail "nothing says what is next"
for file in man/man8/spa-gateway.8.gz man/man8/spa-admin.8.gz man/man5/spa-policy.5.gz bash-completion/completions/spa-admin doc/spa-gateway/copyright; do
    gateway test -e /usr/share/$file || fail "/usr/share/$file is missing"
done
on client bash -n /usr/share/bash-completion/completions/spa || fail "the completions are no shell"

step "three questions"
printf '\n\n\n' | gateway spa-admin init > "$work/init" || fail "init: $(cat "$work/init")"
[ "$(grep -o '\]: ' "$work/init" | wc -l)" -eq 3 ] || fail "init asks more or less than three questions: $(cat "$work/init")"
gateway sed -i 's/^trust = "auto"/trust = "always"/' /etc/spa/gateway.toml
gateway timeout 120 systemctl enable --now spa-gateway > "$work/enable" 2>&1 || fail "it does not start: $(cat "$work/enable")"
eventually "the gateway does not answer" gateway spa-admin status
gateway spa-admin status | grep -q "^wireguard  *$wireguard" || fail "not the $wireguard WireGuard"
gateway spa-admin doctor > "$work/doctor" 2>&1 || fail "doctor: $(cat "$work/doctor")"
! grep 'could not be looked at' "$work/doctor" || fail "doctor does not find the enforcer"
for unit in spa-gateway spa-gateway-dark; do
    gateway systemd-analyze security --no-pager $unit.service > "$work/$unit.security"
    exposure=$(sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p' "$work/$unit.security")
    step "$unit.service: exposure $exposure of 10"
    awk "BEGIN { exit !($exposure < 4) }" || fail "the unit is less confined than it was"
done
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then
    confined=$(cat "/proc/$(named gateway spa-gateway | head -1)/attr/current")
    step "AppArmor: $confined"
    [ "$confined" = "spa-gateway (enforce)" ] || fail "AppArmor does not confine it"
fi

step "the main job"
gateway spa-admin user add ana --group staff > /dev/null
gateway spa-admin resource add wiki 10.0.5.10/32 8080/tcp > /dev/null
gateway spa-admin allow staff wiki > /dev/null
invite=$(gateway spa-admin invite ana --no-confirm 2>/dev/null | grep -o 'spa1:[A-Za-z0-9_./:-]*')
client sh -c 'umask 077; cat > ~/password' <<< 'correct horse battery'
on client sh -c 'cat > /usr/local/bin/phone; chmod 755 /usr/local/bin/phone' < "$phone"
page() { ip netns exec $name-client curl -s -m 4 http://10.0.5.10:8080/ | grep -q 'the wiki'; }
# One code opens one door: the next one is waited for.
next_code() {
    while [ "$(($(date +%s) / 30))" -eq "$(cat "$work/code" 2>/dev/null || echo 0)" ]; do sleep 0.5; done
}
# When it was used is only known afterwards: a slow machine takes its code long after it began.
code_is_used() { echo "$(($(date +%s) / 30))" > "$work/code"; }
knock() {
    next_code
    client sh -c 'spa knock wiki --password-file ~/password --code "$(SPA_TOTP_URI=$(cat ~/totp) phone)"' > "$work/knock" 2>&1 || fail "knock: $(cat "$work/knock")"
    code_is_used
}
client spa enroll "$invite" --name laptop --password-file /home/ana/password --code-command phone --totp-out /home/ana/totp > "$work/enroll" 2>&1 ||
    fail "enroll: $(cat "$work/enroll")"
code_is_used
! page || fail "the wiki is open to everybody"
knock
page || fail "the wiki does not answer through the tunnel"
client spa status --json | grep -q "\"wireguard\":\"$wireguard\"" || fail "the client does not use the $wireguard WireGuard"
held() { client spa status | grep -q 'held by  *spa-.*\.scope of the systemd user manager'; }
# An emulated machine is too slow for the 3 s the agent waits for systemd; it then is a process of its own.
[ -n "${IN_VM:-}" ] || eventually "the agent is in no scope of ana's manager" held

step "upgraded under an open session"
gateway sh -c 'dpkg -i /packages/next/spa-gateway_*.deb /packages/next/spa-tunnel_*.deb' > "$work/dpkg" 2>&1 || fail "upgrade: $(cat "$work/dpkg")"
on client sh -c 'dpkg -i /packages/next/spa-client_*.deb' > "$work/dpkg" 2>&1 || fail "upgrade: $(cat "$work/dpkg")"
eventually "the gateway does not answer after the upgrade" gateway spa-admin status
if [ $wireguard = kernel ]; then
    eventually "the session did not outlive the upgrade" page
    gateway spa-admin session list | grep -q wiki || fail "the session is not known any more"
    client spa close > /dev/null 2>&1 || fail "close after the upgrade"
    ! page || fail "closed, and the wiki still answers"
else
    # The process that carried the tunnel was the old one's: the session is over, and says so.
    ! gateway spa-admin session list | grep -q wiki || fail "a session without its tunnel"
    ! page || fail "the session is over, and the wiki still answers"
    client spa close > /dev/null 2>&1 || true
fi

if [ -z "${IN_VM:-}" ]; then
    step "the last login ends"
    knock
    eventually "the agent is in no scope of ana's manager" held
    on client loginctl disable-linger ana
    closed() { ! gateway spa-admin session list | grep -q wiki; }
    eventually "the session outlives the login" closed
    ! page || fail "nobody is logged in, and the wiki still answers"
    on client loginctl enable-linger ana
    eventually "systemd has no manager for ana" client test -e /run/user/1000/systemd/private
fi

step "removed under an open session"
knock
page || fail "the wiki does not answer after the upgrade"
gateway dpkg -r spa-gateway > "$work/dpkg" 2>&1 || fail "remove: $(cat "$work/dpkg")"
! page || fail "removed, and the wiki still answers"
! gateway nft list table inet spa 2>/dev/null || fail "removed, and its table is still there"
! gateway ip link show spa0 2>/dev/null || fail "removed, and its interface is still there"
[ -z "$(named gateway spa-gateway)$(named gateway spa-enforcer)$(named gateway spa-tunnel)" ] || fail "removed, and a process of it still runs"
gateway test -e /var/lib/spa/store.db || fail "removed, and the store went with it"
client spa close > /dev/null 2>&1 || true

step "purged"
gateway dpkg -P spa-gateway spa-tunnel > "$work/dpkg" 2>&1 || fail "purge: $(cat "$work/dpkg")"
on client dpkg -P spa-client spa-tunnel > "$work/dpkg" 2>&1 || fail "purge: $(cat "$work/dpkg")"
listing > "$work/after"
diff "$work/before" "$work/after" || fail "purged, and this is another machine than before"
accounts > "$work/accounts.after"
diff "$work/accounts.before" "$work/accounts.after" || fail "purged, and its users are still there"
step "all of it holds, with the $wireguard WireGuard"
