#!/usr/bin/env bash
# `make test-vm`: the end-to-end tests on the kernel's own WireGuard, in a throw-away virtual machine with Debian's kernel.
# The tests are those of `make e2e`. Emulated, without KVM, they need most of an hour. FILTER="end:: crash::" runs a part.
set -eu
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/sbin:/sbin"

skip() {
    echo "SKIPPED: test-vm: $1" >&2
    exit 0
}
[ "$(uname -m)" = x86_64 ] || skip "only for x86_64"
command -v qemu-system-x86_64 >/dev/null || skip "no qemu here; as root: apt-get install qemu-system-x86 qemu-system-common busybox-static"
[ "$(id -u)" -eq 0 ] || { echo "test-vm: the machine's file system is this one's, which root alone may pass on: run as root" >&2; exit 1; }

target=$(readlink -f "${CARGO_TARGET_DIR:-target}")
export VM_CACHE=${VM_CACHE:-$target/vm}
"${CARGO:-cargo}" build --locked -q --workspace --no-default-features
test=$("${CARGO:-cargo}" test --locked --no-run --workspace --no-default-features --test e2e 2>&1 | sed -n 's/.*e2e\/main.rs (\(.*\))/\1/p')
[ -n "$test" ] || { echo "test-vm: no test was built" >&2; exit 1; }
# The main job, who gets through a NAT, the guard, failures; one after the other, for emulated they are slow enough to miss their limits.
# shellcheck disable=SC2206 # words
filter=(${FILTER:-outside:: asked:: networks:: guard:: end:: crash:: kill:: policy::a_lock policy::leaving_a_group dark::the_silence dark::only_a_whole_knock configuration::a_flowtable})
exec tests/vm/run-in-vm.sh --timeout "${VM_TIMEOUT:-5400}" tests/vm/guest.sh "$(readlink -f "$test")" "${filter[@]}" --test-threads=1 \
    --skip the_tunnel_is_killed
