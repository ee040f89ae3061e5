#!/usr/bin/env bash
# Changes one operator, bound or result at a time in what checks, compares and derives keys, and sees that a unit test notices
# (`cargo install --locked cargo-mutants`). FILES="knock.rs guard.rs" chooses. A copy of the tree is what is changed: in MUTANTS_DIR,
# with what is built and said (1 GB; in memory it is faster: MUTANTS_DIR=/dev/shm/mutants). Some four seconds of a processor for each,
# half an hour for all. What survives and may is in docs/assurance.md.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
"$cargo" mutants --version >/dev/null 2>&1 || {
    echo "mutants: SKIPPED: cargo-mutants is not here; \`cargo install --locked cargo-mutants\`" >&2
    exit 0
}
proto=(knock reply proof tlv keys primitives)
core=(guard factors spent tags bucket policy/decide intake work knock_keys person queue marks pool outbox peer)
out=${MUTANTS_DIR:-$PWD/target/mutants}
mkdir -p "$out/copy" "$out/said"
export CARGO_TARGET_DIR=$out/target CARGO_PROFILE_DEV_DEBUG=0
# The tests of the wire take longer than building it, those of the core do not: the wire alone is compiled better.
# The first test that fails is enough; only with this variable does libtest take the option, and the runner keeps it off the build.
faster=(--config=profile.dev.package.spa-proto.opt-level=1 "--config=target.'cfg(all())'.runner=['env','RUSTC_BOOTSTRAP=1']")
enough=(-- -Zunstable-options --fail-fast)

# A file that is equal keeps its age: Cargo builds what differs.
git ls-files -z | while IFS= read -r -d '' file; do
    [ ! -f "$file" ] || cmp -s "$file" "$out/copy/$file" || { mkdir -p "$out/copy/$(dirname "$file")"; cp "$file" "$out/copy/$file"; }
done
cd "$out/copy"

# `try package folder name…`: its own tests alone, all features. Debug formats tell a person something, not a decision.
try() {
    local package=$1 folder=$2 name kind said before= own
    shift 2
    for name in "$@"; do
        [ -z "${FILES:-}" ] || [[ " $FILES " == *" $name.rs "* ]] || continue
        # Once without any change: what fails by itself notices nothing.
        [ "$before" ] || "$cargo" "${faster[@]}" test --locked -q --all-features --lib -p "$package" "${enough[@]}" >"$out/said/$package.txt" 2>&1 ||
            { echo "mutants: the tests of $package fail as they are: $out/said/$package.txt" >&2; exit 1; }
        before=done
        # What policy means has a file of tests beside the crate.
        own=(--lib)
        [[ $name != policy/* ]] || own+=(--test=policy_semantics)
        said=$out/said/${name//\//-}
        rm -rf "$said"
        mkdir -p "$said"
        "$cargo" mutants --in-place --baseline=skip --no-shuffle --colors never --timeout 120 --build-timeout 900 -p "$package" -f "$folder/$name.rs" \
            --exclude-re 'impl (fmt::)?Debug' --exclude-re 'impl (fmt::)?Display' -o "$said" --all-features --cargo-arg=--locked "${own[@]/#/--cargo-arg=}" "${faster[@]/#/--cargo-arg=}" -- "${enough[@]}" \
            >"$said/progress.txt" 2>&1 || missed=1
        printf '%-16s' "$name.rs"
        for kind in caught missed timeout unviable; do
            printf ' %4d %s' "$(wc -l <"$said/mutants.out/$kind.txt")" "$kind"
        done
        echo
        cat "$said/mutants.out/missed.txt"
    done
}

missed=0
try spa-proto spa-proto/src "${proto[@]}"
try spa-gateway-core spa-gateway/core/src "${core[@]}"
exit "$missed"
