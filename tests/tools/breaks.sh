#!/usr/bin/env bash
# Breaks the project on purpose, one promise at a time, in a copy, and sees that the check named in the patch notices.
# A patch of tests/breaks says in its head which promise it breaks and what catches it: sim, vectors, fuzz or model.
# `tests/tools/breaks.sh [NAME…]`; a minute or two for each, so it is no part of `make test`.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
command -v patch >/dev/null || { echo "breaks: patch is not here; as root: apt-get install patch" >&2; exit 1; }
export CARGO_TARGET_DIR=${BREAKS_TARGET_DIR:-$PWD/target/breaks}
# In one place each time, so that what no patch touches is built once.
copy=$CARGO_TARGET_DIR/copy
out=$CARGO_TARGET_DIR/noticed.out
mkdir -p "$copy"

# The tree as it is here. A file that is equal keeps its age: Cargo builds what differs.
restore() {
    local file
    git ls-files -z | while IFS= read -r -d '' file; do
        [ -f "$file" ] || continue
        cmp -s "$file" "$copy/$file" || { mkdir -p "$copy/$(dirname "$file")"; cp "$file" "$copy/$file"; }
    done
}

# One selection of packages as `make build` has it, so that no dependency is built twice.
build() {
    case $1 in
        sim) "$cargo" build --locked -q --workspace --no-default-features --bin spa-sim ;;
        vectors) "$cargo" build --locked -q --workspace --bin check-vectors ;;
        fuzz) "$cargo" test --locked -q --workspace --no-default-features --test corpora --no-run ;;
        model) ;;
        *) echo "breaks: no check is called $1" >&2; exit 2 ;;
    esac
}

check() {
    case $1 in
        sim) "$CARGO_TARGET_DIR/debug/spa-sim" 600 ;;
        vectors) "$CARGO_TARGET_DIR/debug/check-vectors" tests/vectors ;;
        fuzz) "$cargo" test --locked -q --workspace --no-default-features --test corpora ;;
        model) ONLY="09 11" tests/tools/model.sh ;;
    esac
}

unnoticed=0
for patch in tests/breaks/*.patch; do
    name=$(basename "$patch" .patch)
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    by=$(sed -n 's/^caught by: //p' "$patch")
    if [ "$by" = model ] && ! command -v "${PROVERIF:-proverif}" >/dev/null; then
        echo "$name: SKIPPED, proverif is not here"
        continue
    fi
    restore
    if ! patch -s -p1 --no-backup-if-mismatch -d "$copy" <"$patch" >"$out" 2>&1; then
        echo "$name: does not apply any more; write it anew" >&2
        unnoticed=1
    elif ! (cd "$copy" && build "$by") >"$out" 2>&1; then
        echo "$name: does not compile any more; write it anew" >&2
        unnoticed=1
    elif (cd "$copy" && check "$by") >"$out" 2>&1; then
        echo "$name: NOT noticed by $by" >&2
        unnoticed=1
    else
        echo "$name: $by says: $(grep -m1 -E 'breaks a promise|^FAIL |^DIFF|panicked|FAILED' "$out" | cut -c1-200)"
    fi
done
exit "$unnoticed"
