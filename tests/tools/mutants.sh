#!/usr/bin/env bash
# Changes one operator, bound or result at a time in what checks, compares and derives keys, and sees that a unit test notices
# (`cargo install --locked cargo-mutants`). FILES="knock.rs guard.rs" chooses; MUTANTS_DIR keeps what was built and said.
# Hours on one processor. What survives and may is in docs/assurance.md.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
"$cargo" mutants --version >/dev/null 2>&1 || {
    echo "mutants: SKIPPED: cargo-mutants is not here; \`cargo install --locked cargo-mutants\`" >&2
    exit 0
}
proto=(knock.rs reply.rs proof.rs tlv.rs keys.rs primitives.rs)
core=(intake.rs guard.rs factors.rs spent.rs bucket.rs tags.rs work.rs knock_keys.rs person.rs queue.rs marks.rs pool.rs policy/decide.rs)
out=${MUTANTS_DIR:-target/mutants}
mkdir -p "$out"

# `files folder name…`: those of the names that are asked for.
files() {
    local folder=$1 name
    shift
    for name in "$@"; do
        [ -z "${FILES:-}" ] || [[ " $FILES " == *" $name "* ]] || continue
        printf -- '-f\n%s/%s\n' "$folder" "$name"
    done
}

# Its own tests alone, all features, as few crates as it takes. Debug formats tell a person something, not a decision.
try() {
    local package=$1
    shift
    [ $# -gt 0 ] || return 0
    "$cargo" mutants --no-shuffle --colors never -p "$package" --timeout 300 --build-timeout 900 \
        --exclude-re 'impl (fmt::)?Debug' --exclude-re 'impl (fmt::)?Display' -o "$out/$package" "$@" -- --locked --all-features --lib || missed=1
}

missed=0
mapfile -t chosen < <(files spa-proto/src "${proto[@]}")
try spa-proto "${chosen[@]}"
mapfile -t chosen < <(files spa-gateway/core/src "${core[@]}")
try spa-gateway-core "${chosen[@]}"
for list in "$out"/*/mutants.out/missed.txt; do
    [ -s "$list" ] && cat "$list"
done
exit "$missed"
