#!/usr/bin/env bash
# `make test-vm`: the end-to-end tests on the kernel's own WireGuard, in a throw-away virtual machine with Debian's kernel.
# Tests of `make e2e`, and those of tests/e2e/kernel.rs, which need a kernel of their own. Emulated, without KVM, they take 20 to 45
# minutes. FILTER="end:: crash::" runs a part.
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
# The main job, networks and NAT, the guard, ends and failures, as far as another WireGuard could make a difference; one after the
# other, for emulated they are slow enough to miss their limits.
main="asked::a_knock_for_wiki asked::the_neighbour asked::nothing_enters outside::the_kernels outside::over_ipv6 dark::only_a_whole_knock"
ends="end::a_session_ends end::close_ends end::cut_ends end::clear_takes policy::a_lock guard::"
failures="crash::a_restart crash::after_a_kill crash::when_the_enforcer crash::another_firewalls crash::elements_flushed kill:: kernel::"
# shellcheck disable=SC2206 # words
filter=(${FILTER:-$main networks:: $ends $failures})
exec tests/vm/run-in-vm.sh --timeout "${VM_TIMEOUT:-5400}" tests/vm/guest.sh "$(readlink -f "$test")" "${filter[@]}" --test-threads=1 \
    --skip the_tunnel_is_killed
