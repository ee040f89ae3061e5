#!/usr/bin/env bash
# The files of packaging/openwrt, as far as they can be tried without a router: every script is one a small shell takes, what
# the init script tells procd is what fw4 takes (facts measured on the real one), the packages install what they name, the
# tree of LuCI's app is sound and its views work against a gateway that is played.
set -eu
cd "$(dirname "$0")"
openwrt=$PWD/../../packaging/openwrt
dir=$(mktemp -d)
trap 'rm -rf --one-file-system "$dir"' EXIT
fail() { echo "FAILED: $1" >&2; exit 1; }

shell=$(command -v dash || command -v sh)
while IFS= read -r script; do
    "$shell" -n "$script" || fail "$script is no shell script"
done < <(grep -rlE '^#!/bin/sh' --exclude=Makefile "$openwrt")

# The init script: told as it would be on a router, with its paths below ours.
mkdir -p "$dir/lib/functions" "$dir/usr/sbin" "$dir/state"
: >"$dir/lib/functions/network.sh"
echo keys >"$dir/state/store.db"
printf '#!/bin/sh\necho "$@" >>%s\nexit "${UCI_EXIT:-0}"\n' "$dir/asked" >"$dir/usr/sbin/spa-admin"
chmod +x "$dir/usr/sbin/spa-admin"
sed "s#/lib/functions/network.sh#$dir&#; s#/usr/sbin/spa-admin#$dir&#; s#^STORE=.*#STORE=$dir/state/store.db#; s#/sbin/ujail#$dir&#; s#/var/run#$dir#" \
    "$openwrt/net/spa-gateway/files/spa-gateway.init" >"$dir/init"
stub=$PWD/openwrt/procd.sh
run() { (cd "$dir" && env "$@" "$shell" -c ". '$stub'; . ./init; $what"); }
what=start_service
run UCI_enabled=0 | diff /dev/null - || fail "a service that is not enabled does something"
run UCI_enabled=1 UCI_network="wan wan6" DEVICE_wan=pppoe-wan >"$dir/told"
diff openwrt/service.txt "$dir/told" || fail "what procd is told is not what fw4 takes"
[ "$(cat "$dir/asked")" = "uci --device wan=pppoe-wan" ] || fail "spa-admin was asked: $(cat "$dir/asked")"
run UCI_enabled=1 UCI_wan_zone="wan modem" UCI_lan_zone="lan office" UCI_zone=vpn UCI_port=4000 >"$dir/told"
for wanted in '"src":"modem","proto":["udp"],"family":"ipv6","dest_port":"4000"' '"src":"vpn","dest":"office"'; do
    grep -qF "$wanted" "$dir/told" || fail "no rule with $wanted"
done
run UCI_enabled=1 UCI_EXIT=1 >"$dir/told" && fail "it starts with a configuration that is refused"
grep -q '^instance' "$dir/told" && fail "it starts with a configuration that is refused"
mkdir -p "$dir/sbin" && : >"$dir/sbin/ujail" && chmod +x "$dir/sbin/ujail"
run UCI_enabled=1 >"$dir/told"
# To capabilities without a jail procd does not listen.
grep -A2 '^jail' "$dir/told" | diff - <(printf 'jail spa-gateway\nparam capabilities /etc/capabilities/spa-gateway.json\nparam no_new_privs 1\n') ||
    fail "the jail"
rm "$dir/state/store.db"
run UCI_enabled=1 >"$dir/told" && fail "it starts without keys"
grep -q 'said .*run spa-admin init' "$dir/told" || fail "nothing is said about keys: $(cat "$dir/told")"
what=service_triggers
run UCI_network="wan wan6" >"$dir/told"
printf 'trigger spa-gateway network firewall\ninterface trigger wan\ninterface trigger wan6\n' | diff - "$dir/told" || fail "the triggers"

# What closes everything waits for the enforcer, which would put it back, and not for ever: what waits and what closes write down what they
# do, and the enforcer is a process that ends with the first wait, or not before it is killed.
mkdir "$dir/bin"
printf '#!/bin/sh\necho "${0##*/} $*" >>%s\n[ "$1" != list ]\n' "$dir/shut" | tee "$dir/bin/ip" >"$dir/bin/nft"
printf '#!/bin/sh\n[ -e "/proc/$ENFORCER/exe" ] && echo "$ENFORCER"\n' >"$dir/bin/pidof" # which one that is dead and not yet buried has not
printf '#!/bin/sh\necho wait >>%s\n[ -z "$ENDS" ] || kill -9 "$ENFORCER" 2>/dev/null\nexec %s 0.1\n' "$dir/shut" "$(command -v sleep)" >"$dir/bin/sleep"
chmod +x "$dir"/bin/*
what=shut
for ends in 1 ""; do
    sleep 60 &
    enforcer=$!
    disown # bash would tell of its end
    : >"$dir/shut"
    run PATH="$dir/bin:$PATH" ENFORCER="$enforcer" ENDS="$ends" UCI_interface=spa7 || fail "shut fails"
    [ ! -e "/proc/$enforcer/exe" ] || fail "shut leaves the enforcer"
    waits=$(grep -c wait "$dir/shut")
    # Told to end it does so when this machine lets it.
    [ "$waits" -ge "$([ -n "$ends" ] && echo 1 || echo 11)" ] || fail "shut waits $waits times"
    printf '%s\n' 'ip link delete spa7' 'nft flush set inet fw4 spa1_door4' 'nft flush set inet fw4 spa1_door6' \
        'nft flush set inet fw4 spa1_session4' 'nft flush set inet fw4 spa1_session6' 'nft delete table inet spa' 'nft list table inet spa' |
        diff - <(tail -n +$((waits + 1)) "$dir/shut") || fail "shut does not close everything"
done

# The time becomes right: a gateway that does not run is started, unless somebody stopped it.
mkdir -p "$dir/etc/init.d"
printf '#!/bin/sh\ncase "$1" in running) exit "$RUNNING" ;; enabled) exit "${ENABLED:-0}" ;; esac\necho "$@" >>%s\n' "$dir/ntp-did" >"$dir/etc/init.d/spa-gateway"
chmod +x "$dir/etc/init.d/spa-gateway"
sed "s#/etc/init.d/spa-gateway#$dir&#g; s#/var/run#$dir#" "$openwrt/net/spa-gateway/files/spa-gateway.ntp" >"$dir/ntp"
ntp() { # did variable…
    local did=$1
    shift
    : >"$dir/ntp-did"
    env "$@" "$shell" "$dir/ntp" || fail "the hook of the time"
    [ "$(cat "$dir/ntp-did")" = "$did" ] || fail "with $* the time does: $(cat "$dir/ntp-did")"
}
what=stop_service && run
ntp "" ACTION=stratum RUNNING=1
what=start_service && run UCI_enabled=0
ntp start ACTION=stratum RUNNING=1
ntp "" ACTION=stratum RUNNING=0
ntp "" ACTION=stratum RUNNING=1 ENABLED=1
ntp "" ACTION=unsync RUNNING=1

# Dark before there is a network, where the gateway is to run, and nowhere else.
mkdir -p "$dir/etc/init.d"
printf '#!/bin/sh\nexit "${INIT_ENABLED:-0}"\n' >"$dir/etc/init.d/spa-gateway"
printf '#!/bin/sh\necho "$@" >>%s\n' "$dir/closed" >"$dir/usr/sbin/spa-gateway"
chmod +x "$dir/etc/init.d/spa-gateway" "$dir/usr/sbin/spa-gateway"
echo public >"$dir/gateway.toml"
sed "s#/usr/sbin/spa-gateway#$dir&#; s#/etc/init.d/spa-gateway#$dir&#; s#^CONF=.*#CONF=$dir/gateway.toml#" \
    "$openwrt/net/spa-gateway/files/spa-gateway-dark.init" >"$dir/dark"
dark() { (cd "$dir" && env "$@" "$shell" -c ". '$stub'; . ./dark; start") >/dev/null; }
dark UCI_enabled=0 && dark UCI_enabled=1 INIT_ENABLED=1 || fail "the early boot of a router that runs no gateway"
[ ! -e "$dir/closed" ] || fail "it is dark without a gateway that would open it"
dark UCI_enabled=1 || fail "the early boot"
[ "$(cat "$dir/closed")" = "close --config $dir/gateway.toml" ] || fail "the early boot is not dark"
start_of() { sed -n 's/^START=//p' "$openwrt/net/spa-gateway/files/$1"; }
[ "$(start_of spa-gateway-dark.init)" -lt 19 ] || fail "fw4 and the network start before the darkness"

# One set of capabilities, whoever gives it: procd, systemd, Docker.
capabilities() { grep -oE '(CAP_)?[A-Z]+(_[A-Z]+)*' | sed 's/^CAP_//' | sort -u; }
unit=$(sed -n 's/^CapabilityBoundingSet=//p' "$openwrt/../systemd/spa-gateway.service" | capabilities)
[ "$(sed -n 's/.*"bounding": *//p' "$openwrt/net/spa-gateway/files/spa-gateway.capabilities.json" | capabilities)" = "$unit" ] ||
    fail "the jail has other capabilities than the unit"
[ "$(sed -n '/cap_add:/,/devices:/s/^ *- \([A-Z_]*\).*/\1/p' "$openwrt/../docker/compose.yaml" | capabilities)" = "$unit" ] ||
    fail "the container has other capabilities than the unit"

# The packages: read by make with the feed's own words played, and installed as they say.
command -v make >/dev/null || { echo "SKIPPED, NOT PASSED: no make"; exit 0; }
mkdir -p "$dir/top/feeds/packages/lang/rust" "$dir/include"
: >"$dir/top/rules.mk"
: >"$dir/include/package.mk"
: >"$dir/top/feeds/packages/lang/rust/rust-package.mk"
: >"$dir/include/luci.mk"
cat >"$dir/top/rules.mk" <<'MK'
INSTALL_DIR:=install -d
INSTALL_BIN:=install -m 0755
INSTALL_CONF:=install -m 0600
INSTALL_DATA:=install -m 0644
LN:=ln -sf
SHELL:=/bin/bash
define BuildPackage
all:: ; $$(call Package/$(1)/install,$$(ROOT))
endef
MK
mkdir -p "$dir/built/bin"
for program in spa spa-gateway spa-enforcer spa-tunnel; do echo x >"$dir/built/bin/$program"; done
for package in spa-gateway spa-client; do
    make -s -C "$openwrt/net/$package" TOPDIR="$dir/top" INCLUDE_DIR="$dir/include" PKG_INSTALL_DIR="$dir/built" ROOT="$dir/root" all ||
        fail "$package does not install"
done
for file in usr/sbin/spa-gateway usr/sbin/spa-admin usr/sbin/spa-enforcer usr/bin/spa etc/init.d/spa-gateway etc/init.d/spa-gateway-dark etc/config/spa-gateway \
    lib/upgrade/keep.d/spa-gateway etc/hotplug.d/ntp/60-spa-gateway etc/uci-defaults/60-spa-gateway; do
    [ -s "$dir/root/$file" ] || fail "$file is not installed"
done
# Where the embedded WireGuard cannot be built the package goes without it.
rm "$dir/built/bin/spa-tunnel"
make -s -C "$openwrt/net/spa-gateway" TOPDIR="$dir/top" INCLUDE_DIR="$dir/include" PKG_INSTALL_DIR="$dir/built" ROOT="$dir/mips" ARCH=mips all ||
    fail "spa-gateway does not install on MIPS"
[ -x "$dir/root/etc/init.d/spa-gateway" ] && [ -x "$dir/root/etc/init.d/spa-gateway-dark" ] || fail "the init script cannot be run"
[ "$(stat -c %a "$dir/root/etc/config/spa-gateway")" = 600 ] || fail "the configuration is open to others"

if command -v node >/dev/null; then
    node openwrt/luci.mjs "$openwrt" "$dir" || fail "LuCI"
    ./openwrt/screenshots.sh "$dir"
else
    echo "SKIPPED, NOT PASSED: no node for the views of LuCI"
fi
# The plugin again, by the interpreter that a router has.
if [ -n "$(openwrt/ucode.sh)" ]; then
    printf '#!/bin/sh\ncase "$*" in *--json) printf "{\\"asked\\":\\"%%s\\"}\\n" "$*" ;; *) echo "$*" ;; esac\n' >"$dir/usr/sbin/spa-admin"
    sed "s#/usr/sbin/spa-admin#$dir&#" "$openwrt/luci/luci-app-spa-gateway/root/usr/share/rpcd/ucode/spa.uc" >"$dir/spa.uc"
    openwrt/ucode.sh openwrt/plugin.uc "$dir/spa.uc" || fail "the plugin of LuCI"
else
    echo "SKIPPED, NOT PASSED: no ucode for the plugin of LuCI; build github.com/jow-/ucode with cmake and say UCODE=FOLDER"
fi
echo "packaging/openwrt is sound"
