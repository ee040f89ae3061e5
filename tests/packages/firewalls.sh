#!/usr/bin/env bash
# Debian's own ufw and firewalld, each in a root and a network of its own: what the gateway says about them mends them.
set -eu
cd "$(dirname "$0")/../.."
SPA_TEST_PACKAGES=1 "${CARGO:-cargo}" test --locked -q --workspace --no-default-features --test e2e -- --nocapture --test-threads 1 walls::real
