#!/usr/bin/env bash
# The part of `make install` that is not copying programs: users, group, systemd unit. `--remove` takes the unit away again.
set -eu
cd "$(dirname "$0")"
unit="${DESTDIR-}${SYSTEMD_UNITS:-/etc/systemd/system}/spa-gateway.service"

if [ "${1-}" = --remove ]; then
    if [ -z "${DESTDIR-}" ] && command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
        systemctl disable --now spa-gateway.service 2>/dev/null || true
    fi
    rm -f "$unit"
    exit 0
fi

# A package builder (DESTDIR) gets the description of the users, a machine gets the users.
if [ -n "${DESTDIR-}" ]; then
    install -D -m 0644 sysusers.d/spa.conf "$DESTDIR/usr/lib/sysusers.d/spa.conf"
elif command -v systemd-sysusers >/dev/null; then
    systemd-sysusers "$PWD/sysusers.d/spa.conf"
else
    getent group spa-admin >/dev/null || groupadd --system spa-admin
    for user in spa-gateway spa-tunnel; do
        getent passwd "$user" >/dev/null || useradd --system --no-create-home --shell /usr/sbin/nologin "$user"
    done
fi

if [ -n "${DESTDIR-}" ] || [ -d /etc/systemd/system ]; then
    install -d "$(dirname "$unit")"
    sed "s|@PREFIX@|${PREFIX:-/usr/local}|g" systemd/spa-gateway.service > "$unit"
    chmod 0644 "$unit"
fi
if [ -z "${DESTDIR-}" ]; then
    [ -d /run/systemd/system ] && systemctl daemon-reload
    echo "installed; next: spa-admin init, then systemctl enable --now spa-gateway"
fi
