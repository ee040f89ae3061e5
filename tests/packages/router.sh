#!/usr/bin/env bash
# What a router and a container run, as far as a machine that is neither can show: the static programs of `make router` do the main
# job on real packets, live in the memory of a router, and are all a container needs. What is missing here is said, loudly.
# PROGRAMS=folder takes other programs than those of `make router`.
set -eu
cd "$(dirname "$0")/../.."
if [ "$(id -u)" -ne 0 ]; then
    echo "test-packages: network namespaces need root: run \`sudo -E env PATH=\"\$PATH\" make test-packages\`" >&2
    exit 1
fi
export PATH="$PATH:/usr/sbin:/sbin"
cargo=${CARGO:-cargo}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
programs=${PROGRAMS:-$target/router/programs/$(uname -m)}
[ -x "$programs/spa-gateway" ] || BUILD_ONLY=1 packaging/router/build.sh "$(uname -m)"

place=$(mktemp -d /tmp/spa-router.XXXXXX)
chmod 0755 "$place"
space=spa-router-$$
group=/sys/fs/cgroup/memory/$space
daemon=""
clean() {
    if [ -n "$daemon" ]; then kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; fi
    ip netns delete "$space" 2>/dev/null || true
    # The last of its processes may still be going.
    for _ in {1..50}; do
        [ -d "$group" ] || break
        rmdir "$group" 2>/dev/null || read -rt 0.1 <> <(:) || true
    done
    rm -rf --one-file-system "$place"
}
trap clean EXIT
skip() { echo "SKIPPED: $*"; }
fail() { echo "router: $*" >&2; exit 1; }

# Waits for the gateway that was started to answer this, at most 20 s.
await() {
    local until=$((SECONDS + 20))
    while ! "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ] || ! kill -0 "$daemon" 2>/dev/null; then
            cat "$place/log" >&2
            fail "the gateway does not answer"
        fi
        read -rt 0.1 <> <(:) || true
    done
}

main_job() {
    echo "== the main job with the programs in $programs"
    mkdir "$place/programs"
    cp -d "$programs"/{spa-gateway,spa-admin,spa-enforcer,spa-tunnel,spa} "$place/programs/"
    "$cargo" build --locked -q --workspace --no-default-features --bin spa-phone
    cp "$target/debug/spa-phone" "$place/programs/"
    # Which of them: from a fresh gateway to a page; darkness; only what was asked; the end; a kill; no way back to a privilege.
    SPA_PROGRAMS=$place/programs "$cargo" test --locked -q --workspace --no-default-features --test e2e -- --exact --test-threads "$(( $(nproc) * 2 ))" \
        administration::the_readmes_commands_lead_to_a_page administration::no_process_can_regain_a_privilege \
        dark::every_port_is_silent asked::a_knock_for_wiki_reaches_wiki_only asked::what_does_not_exist_and_what_is_not_allowed_look_the_same \
        end::a_session_ends_at_its_deadline_under_traffic end::cut_ends_the_session_and_says_how_long_it_took \
        crash::after_a_kill_everything_lapses_by_itself agent::a_knock_returns_when_the_required_rekey_is_done
}

admin() { ip netns exec "$space" "$place/programs/spa-admin" --config "$place/gateway/gateway.toml" "$@"; }

# A test machine has a clock nobody keeps.
trust() {
    sed -i 's/^trust = .*/trust = "always"/' "$1"
    grep -q '^trust = "always"' "$1" || printf '\n[clock]\ntrust = "always"\n' >>"$1"
}

# One line of a process's smaps_rollup.
kilobytes() { sed -n "s/^$1: *\([0-9]*\) kB/\1/p" "/proc/$2/smaps_rollup"; }

idle() {
    echo "== resident memory, idle"
    ip netns add "$space"
    ip -n "$space" link set lo up
    ip -n "$space" link add eth0 type veth peer name outside
    ip -n "$space" link set outside up
    ip -n "$space" address add 198.51.100.10/24 dev eth0
    ip -n "$space" link set eth0 up
    mkdir "$place/gateway"
    env -u SSH_CONNECTION -u SSH_CLIENT ip netns exec "$space" "$place/programs/spa-admin" --config "$place/gateway/gateway.toml" init --interface eth0 \
        --public 198.51.100.10:51820 --pool 10.200.0.0/16 --user 64610 --tunnel-user 64611 --yes >/dev/null
    trust "$place/gateway/gateway.toml"
    # Where the machine lets us: no more than a router gives, 24 MB with everything the kernel counts for it.
    local enter=()
    if mkdir "$group" 2>/dev/null && echo 24M >"$group/memory.limit_in_bytes" 2>/dev/null; then
        enter=(sh -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$group")
    else
        skip "no memory cgroup (v1) here to limit the gateway to 24 MB; it runs unlimited"
    fi
    "${enter[@]}" ip netns exec "$space" "$place/programs/spa-gateway" run --config "$place/gateway/gateway.toml" >"$place/log" 2>&1 &
    daemon=$!
    await admin status
    # The daemon and what it started: the enforcer, and the tunnel where the kernel has no WireGuard.
    local pid name rss sum=0
    for pid in $(ip netns pids "$space"); do
        name=$(cat "/proc/$pid/comm")
        rss=$(kilobytes Rss "$pid")
        printf '  %-14s %6d kB resident, %6d kB of it its own\n' "$name" "$rss" "$(kilobytes Anonymous "$pid")"
        sum=$((sum + rss))
    done
    echo "  together: $sum kB (budget 12288)"
    [ ! -d "$group" ] || printf '  the cgroup counted at most %d kB\n' "$(( $(cat "$group/memory.max_usage_in_bytes") / 1024 ))"
    luci
    kill "$daemon"; wait "$daemon" || fail "the gateway did not end in peace"
    daemon=""
    [ "$sum" -le 12288 ] || fail "they take more than 12 MB"
}

# What LuCI asks, by the interpreter that a router has for it, of the gateway that runs.
luci() {
    if [ -z "$(tests/packages/openwrt/ucode.sh)" ]; then
        skip "no ucode here: the plugin of LuCI was not tried with a gateway; build github.com/jow-/ucode with cmake and say UCODE=FOLDER"
        return
    fi
    admin user add ana --group eng >/dev/null
    sed "s#/usr/sbin/spa-admin#$place/programs/spa-admin --config $place/gateway/gateway.toml#" \
        packaging/openwrt/luci/luci-app-spa-gateway/root/usr/share/rpcd/ucode/spa.uc >"$place/spa.uc"
    tests/packages/openwrt/ucode.sh tests/packages/openwrt/plugin.uc "$place/spa.uc" ana
}

container() {
    echo "== container"
    local name
    # shellcheck disable=SC2013 # words
    for name in $(sed -n 's/^COPY \(.*\) [^ ]*$/\1/p' packaging/docker/Dockerfile); do
        [ -x "$programs/$name" ] || fail "packaging/docker/Dockerfile copies $name, which \`make router\` does not build"
    done
    if command -v buildah >/dev/null; then
        buildah --storage-driver vfs --root "$place/images" --runroot "$place/images-run" bud --isolation chroot -q \
            -t localhost/spa-gateway -f packaging/docker/Dockerfile "$programs" >/dev/null
        echo "the image builds"
    else
        skip "no buildah here (apt-get install buildah): packaging/docker/Dockerfile was not built"
    fi
    if command -v docker-compose >/dev/null; then
        docker-compose -f packaging/docker/compose.yaml config -q
        echo "the compose file is one"
    else
        skip "no docker-compose here (apt-get install docker-compose): packaging/docker/compose.yaml was not checked"
    fi
    engine
    alone
}

# podman in the place of Docker, in the network namespace of the test. crun knows no cgroups of both kinds side by side.
podman_there() {
    nsenter --net="/run/netns/$space" unshare --mount --propagation slave \
        sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"' _ \
        podman --storage-driver vfs --root "$place/images" --runroot "$place/images-run" --cgroup-manager cgroupfs "$@"
}

# The image in a container of a real engine, with what the compose file gives it.
engine() {
    if ! command -v buildah >/dev/null || ! command -v podman >/dev/null || ! command -v crun >/dev/null; then
        skip "no podman here (apt-get install buildah podman crun): no engine ran the image"
        return
    fi
    local name gateway=localhost/spa-gateway
    local options=(--network host --cgroups=disabled --ulimit nofile=1024:1024 --ulimit nproc=512:512 --cap-drop ALL --read-only
        --tmpfs /run:mode=0755,size=1m --volume "$place/config:/etc/spa" --volume "$place/state:/var/lib/spa")
    for name in $(sed -n '/cap_add:/,/devices:/s/^ *- \([A-Z_]*\).*/\1/p' packaging/docker/compose.yaml); do options+=(--cap-add "$name"); done
    [ ! -e /dev/net/tun ] || options+=(--device /dev/net/tun)
    mkdir "$place/config" "$place/state"
    podman_there run --rm "${options[@]}" --entrypoint /usr/sbin/spa-admin "$gateway" init --interface eth0 --public 198.51.100.10:51820 --pool 10.200.0.0/16 --yes >/dev/null
    trust "$place/config/gateway.toml"
    podman_there run --name gateway "${options[@]}" "$gateway" >"$place/log" 2>&1 &
    daemon=$!
    await podman_there exec gateway spa-admin status
    podman_there exec gateway spa-admin doctor
    podman_there exec gateway spa-admin user add ana --group eng >/dev/null
    podman_there exec gateway spa-admin invite ana | grep -q '^spa1:' || fail "no invite out of the container"
    podman_there stop --time 10 gateway >/dev/null
    wait "$daemon" || fail "the container did not end in peace"
    daemon=""
    echo "a container engine runs it: set up, started, asked for an invite, stopped"
}

# What the image is when it runs: the programs and two folders, nothing else; the capabilities of the compose file, nothing else.
alone() {
    local root=$place/root name set=-all,+sys_chroot # which chroot itself needs
    mkdir -p "$root"/{usr/sbin,etc/spa,var/lib/spa,run,proc,dev/net}
    touch "$root"/dev/{null,net/tun}
    cp "$programs"/{spa-gateway,spa-admin,spa-enforcer,spa-tunnel} "$root/usr/sbin/"
    for name in $(sed -n '/cap_add:/,/devices:/s/^ *- \([A-Z_]*\).*/\1/p' packaging/docker/compose.yaml); do
        set+=,+${name,,}
    done
    # In a mount namespace of its own, gone with the process.
    local enter='set -e; root=$0 set=$1; shift
        mount --bind "$root" "$root"; mount -t proc proc "$root/proc"; mount --bind /dev/null "$root/dev/null"
        [ ! -e /dev/net/tun ] || mount --bind /dev/net/tun "$root/dev/net/tun"
        exec setpriv --bounding-set "$set" chroot "$root" "$@"'
    local inside=(env -i PATH="$PATH" ip netns exec "$space" unshare --mount --propagation private sh -c "$enter" "$root" "$set")
    "${inside[@]}" /usr/sbin/spa-admin init --interface eth0 --public 198.51.100.10:51820 --pool 10.200.0.0/16 --yes >/dev/null
    trust "$root/etc/spa/gateway.toml"
    "${inside[@]}" /usr/sbin/spa-gateway run --config /etc/spa/gateway.toml >"$place/log" 2>&1 &
    daemon=$!
    await "${inside[@]}" /usr/sbin/spa-admin status
    "${inside[@]}" /usr/sbin/spa-admin user add ana --group eng >/dev/null
    "${inside[@]}" /usr/sbin/spa-admin invite ana | grep -q '^spa1:' || fail "no invite out of the container"
    kill "$daemon"; wait "$daemon" || fail "the gateway in the container did not end in peace"
    daemon=""
    echo "with nothing but the image's files and the compose file's capabilities the gateway starts, is asked, and ends"
}

main_job
idle
container
