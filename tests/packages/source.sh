#!/usr/bin/env bash
# `make install` into a folder, and `make uninstall`, which leaves no file of it behind. Needs the programs of `make release`.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d /tmp/spa-source.XXXXXX)
trap 'rm -rf --one-file-system "$folder"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

make -s install DESTDIR="$folder"
for file in usr/local/sbin/spa-{gateway,admin,enforcer,tunnel} usr/local/bin/spa usr/local/share/man/man8/spa-gateway.8 \
    etc/systemd/system/spa-gateway{,-dark}.service usr/lib/sysusers.d/spa.conf; do
    [ -s "$folder/$file" ] || fail "make install: no /$file"
done
! grep -rn '@GATEWAY@' "$folder/etc" || fail "make install: a unit does not know its program"
make -s uninstall DESTDIR="$folder"
left=$(find "$folder" ! -type d)
[ -z "$left" ] || fail "make uninstall leaves $left"
echo "installed from source into a folder, and uninstalled: nothing is left"
