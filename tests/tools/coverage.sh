#!/usr/bin/env bash
# Which lines of wire, order and core their own tests and the simulator run through: a table (`cargo install --locked cargo-llvm-cov`, and
# llvm-profdata and llvm-cov of the compiler's LLVM: `rustup component add llvm-tools`, or LLVM_PROFDATA=/path LLVM_COV=/path).
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
"$cargo" llvm-cov --version >/dev/null 2>&1 || {
    echo "coverage: SKIPPED: cargo-llvm-cov is not here; \`cargo install --locked cargo-llvm-cov\`" >&2
    exit 0
}
exec "$cargo" llvm-cov --locked -p spa-proto -p spa-order -p spa-gateway-core -p spa-sim --all-features --lib --test promises \
    --ignore-filename-regex 'tests?/|tests?\.rs' --summary-only
