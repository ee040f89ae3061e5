#!/usr/bin/env bash
# Runs the end-to-end tests; they make network namespaces, and only root may.
set -eu
cd "$(dirname "$0")/../.."
if [ "$(id -u)" -ne 0 ]; then
    echo "e2e: network namespaces need root: run \`sudo -E env PATH=\"\$PATH\" make $([ "${1-}" = --from-test ] && echo test || echo e2e)\`" >&2
    exit 1
fi
# Each test is its own town and mostly waits, so twice the processors keep a machine busy and its timings honest.
exec "${CARGO:-cargo}" test --locked -q --workspace --no-default-features --test e2e -- --test-threads="${E2E_THREADS:-$(( $(nproc) * 2 ))}"
