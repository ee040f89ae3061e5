#!/usr/bin/env bash
# `make deb`: the Debian packages spa-gateway, spa-client and spa-tunnel, put together by dpkg-deb from the programs of `make release`.
# usage: build.sh PROGRAMS OUT
set -euo pipefail
programs=$(readlink -f "$1")
mkdir -p "$2"
out=$(readlink -f "$2")
cd "$(dirname "$0")/../.."

for tool in dpkg-deb dpkg-shlibdeps; do
    command -v "$tool" >/dev/null || { echo "deb: no $tool here; as root: apt-get install dpkg-dev" >&2; exit 1; }
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)-${REVISION:-1}
rm -f "$out"/*.deb
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# put MODE FILE PLACE: into the package at hand.
put() { install -D -m "$1" "$2" "$root/$3"; }
manual() { gzip -9nc "docs/man/$1" > "$work/page" && put 0644 "$work/page" "usr/share/man/man${1##*.}/$1.gz"; }
text() { printf '%s\n' "$1" > "$work/text" && put 0644 "$work/text" "$2"; }
unit() { sed 's|@GATEWAY@|/usr/libexec/spa/spa-gateway|' "packaging/systemd/$1" > "$work/unit" && put 0644 "$work/unit" "usr/lib/systemd/system/$1"; }

completions() {
    for shell in bash:usr/share/bash-completion/completions/"$1" zsh:usr/share/zsh/vendor-completions/_"$1" fish:usr/share/fish/vendor_completions.d/"$1".fish; do
        "$programs/$1" completions "${shell%%:*}" > "$work/completion"
        put 0644 "$work/completion" "${shell#*:}"
    done
}

begin() {
    package=$1 root=$work/$1
    gzip -9nc CHANGELOG.md > "$work/log"
    put 0644 "$work/log" "usr/share/doc/$1/changelog.gz"
    put 0644 packaging/debian/copyright "usr/share/doc/$1/copyright"
    put 0644 README.md "usr/share/doc/$1/README.md"
}

# finish DESCRIPTION [FIELD…]: libraries are found out from the programs.
finish() {
    local description=$1 script program
    shift
    local found=()
    while IFS= read -r program; do found+=("-e$program"); done < <(find "$root/usr" -type f -perm -0100)
    mkdir -p "$work/shlibs/debian" "$root/DEBIAN"
    printf 'Source: spa\n\nPackage: %s\nArchitecture: any\n' "$package" > "$work/shlibs/debian/control"
    local libraries
    libraries=$(cd "$work/shlibs" && dpkg-shlibdeps -O "${found[@]}" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
    {
        printf 'Package: %s\nVersion: %s\nArchitecture: %s\n' "$package" "$version" "$architecture"
        printf 'Maintainer: SPA <spa@localhost>\nSection: net\nPriority: optional\n'
        printf 'Installed-Size: %s\n' "$(du -sk --exclude=DEBIAN "$root" | cut -f1)"
        printf 'Depends: %s%s\n' "$libraries" "${depends:+, $depends}"
        for field; do printf '%s\n' "$field"; done
        printf 'Description: %s\n' "$description"
    } > "$root/DEBIAN/control"
    (cd "$root" && find . -path ./DEBIAN -prune -o -path ./etc -prune -o -type f -printf '%P\n' | LC_ALL=C sort | xargs md5sum > DEBIAN/md5sums)
    [ ! -d "$root/etc" ] || (cd "$root" && find etc -type f -printf '/%p\n' | LC_ALL=C sort > DEBIAN/conffiles)
    for script in preinst postinst prerm postrm; do
        [ ! -e "packaging/debian/$package.$script" ] || install -m 0755 "packaging/debian/$package.$script" "$root/DEBIAN/$script"
    done
    dpkg-deb --root-owner-group --build "$root" "$out/${package}_${version}_$architecture.deb"
}

begin spa-gateway
put 0755 "$programs/spa-gateway" usr/libexec/spa/spa-gateway
put 0755 "$programs/spa-enforcer" usr/libexec/spa/spa-enforcer
put 0755 "$programs/spa-admin" usr/sbin/spa-admin
# What runs is beside its enforcer; who types its name finds it as well.
ln -s ../libexec/spa/spa-gateway "$root/usr/sbin/spa-gateway"
unit spa-gateway.service
unit spa-gateway-dark.service
put 0644 packaging/sysusers.d/spa.conf usr/lib/sysusers.d/spa-gateway.conf
put 0644 packaging/tmpfiles.d/spa.conf usr/lib/tmpfiles.d/spa-gateway.conf
put 0644 packaging/apparmor.d/spa-gateway etc/apparmor.d/spa-gateway
put 0644 packaging/policy.example.toml usr/share/doc/spa-gateway/examples/policy.toml
put 0644 packaging/nftables/spa.nft usr/share/spa/nftables/spa.nft
put 0644 packaging/nftables/nftables.conf.example usr/share/doc/spa-gateway/examples/nftables.conf
manual spa-gateway.8
manual spa-admin.8
manual spa-policy.5
completions spa-admin
depends='systemd, passwd' finish 'gateway that shows no open port and lets in who knocks
 It reads one sealed packet, the knock, off the wire, and opens WireGuard for
 whoever proves device, password and code in it, for the resources policy
 allows, until a deadline that the kernel enforces.' \
    'Recommends: spa-tunnel, apparmor, nftables'

begin spa-client
put 0755 "$programs/spa" usr/bin/spa
manual spa.1
completions spa
depends='' finish 'knock before connecting
 Opens a gateway that shows no open port, for this device, for a while: one
 packet proves device, password and code, and WireGuard leads to what was
 asked for.' \
    'Recommends: spa-tunnel, libcap2-bin'

begin spa-tunnel
put 0755 "$programs/spa-tunnel" usr/libexec/spa/spa-tunnel
depends='' finish 'WireGuard for spa where the kernel has none
 Started by spa-gateway and spa themselves, without any privilege.'
