#!/usr/bin/env bash
# The part of `make install` that is not copying programs: users, group, systemd units. `--remove` takes the units away again.
set -eu
cd "$(dirname "$0")"
units="${DESTDIR-}${SYSTEMD_UNITS:-/etc/systemd/system}"
services=(spa-gateway.service spa-gateway-dark.service)

if [ "${1-}" = --remove ]; then
    if [ -z "${DESTDIR-}" ] && command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
        systemctl disable --now "${services[@]}" 2>/dev/null || true
    fi
    # Without the gateway nobody would close what is open, or open what is closed.
    if [ -z "${DESTDIR-}" ] && [ -e /etc/spa/gateway.toml ]; then
        "${PREFIX:-/usr/local}/sbin/spa-gateway" clear || true
    fi
    for service in "${services[@]}"; do rm -f "$units/$service"; done
    # On a machine the users stay: what is left in /var/lib/spa is theirs.
    [ -z "${DESTDIR-}" ] || rm -f "$DESTDIR/usr/lib/sysusers.d/spa.conf"
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
    install -d "$units"
    for service in "${services[@]}"; do
        sed "s|@GATEWAY@|${PREFIX:-/usr/local}/sbin/spa-gateway|g" "systemd/$service" > "$units/$service"
        chmod 0644 "$units/$service"
    done
fi
if [ -z "${DESTDIR-}" ]; then
    [ -d /run/systemd/system ] && systemctl daemon-reload
    echo "installed; next: spa-admin init, then systemctl enable --now spa-gateway"
fi
