#!/usr/bin/env bash
# Breaks the project on purpose, one promise at a time, in a copy, and sees that the check named in the patch notices.
# A patch of tests/breaks says in its head which promise it breaks and what catches it: sim, vectors or fuzz.
# `tests/tools/breaks.sh [NAME…]`; minutes for each, so it is no part of `make test`.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR=${BREAKS_TARGET_DIR:-$PWD/target/breaks}

check() {
    case $1 in
        sim) "$cargo" run --locked -q --profile sim -p spa-sim -- 600 ;;
        vectors) "$cargo" run --locked -q -p spa-tests --bin check-vectors -- tests/vectors ;;
        fuzz) "$cargo" test --locked -q -p spa-fuzz-targets --test corpora ;;
        *) echo "breaks: no check is called $1" >&2; exit 2 ;;
    esac
}

unnoticed=0
for patch in tests/breaks/*.patch; do
    name=$(basename "$patch" .patch)
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    by=$(sed -n 's/^caught by: //p' "$patch")
    git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$copy"
    patch -s -p1 -d "$copy" <"$patch"
    # Newer than whatever was built before it.
    find "$copy" -name '*.rs' -exec touch {} +
    if ! (cd "$copy" && "$cargo" check --locked -q -p spa-gateway-core -p spa-proto -p spa-order) 2>"$copy/out"; then
        echo "$name: does not compile any more; write it anew" >&2
        unnoticed=1
    elif (cd "$copy" && check "$by") >"$copy/out" 2>&1; then
        echo "$name: NOT noticed by $by" >&2
        unnoticed=1
    else
        echo "$name: $by says: $(grep -m1 -E 'breaks a promise|expected|panicked|FAILED' "$copy/out" | cut -c1-160)"
    fi
done
exit "$unnoticed"
