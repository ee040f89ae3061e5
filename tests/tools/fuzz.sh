#!/usr/bin/env bash
# Fuzzes every target of fuzz/ for a while, one after the other, and counts. FOR=60s for each; TARGET=name for one alone.
# Coverage comes from LLVM's own pass, so that the stable compiler of the project builds it: no nightly, no cargo-fuzz.
# (Who has cargo-fuzz can use it: the layout is its own.) Memory is not watched: what is fuzzed forbids unsafe code.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
case ${FOR:-60s} in
    *[!0-9smh]* | "" | [smh]*) echo "fuzz: FOR=${FOR:-} is no time; use FOR=60s, FOR=10m or FOR=2h" >&2; exit 2 ;;
    *h) seconds=$(( ${FOR%h} * 3600 )) ;;
    *m) seconds=$(( ${FOR%m} * 60 )) ;;
    *) f=${FOR:-60s}; seconds=${f%s} ;;
esac
command -v "${CXX:-c++}" >/dev/null || { echo "fuzz: no C++ compiler here, which libFuzzer is built with; as root: apt-get install g++" >&2; exit 1; }
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/fuzz/target}
# A target triple keeps them off build scripts, the wrapper off the ciphers.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTC_WRAPPER=$PWD/tests/tools/fuzz-rustc.sh
"$cargo" build --locked -q --release --manifest-path fuzz/Cargo.toml --target "$host" \
    $([ -n "${TARGET:-}" ] && echo "--bin=$TARGET" || echo --bins)
unset RUSTC_WRAPPER
[ "${BUILD_ONLY:-}" ] && exit 0

log=$CARGO_TARGET_DIR/executions.log
failed=0
for file in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$file" .rs)
    [ -z "${TARGET:-}" ] || [ "$TARGET" = "$target" ] || continue
    grown=$CARGO_TARGET_DIR/corpus/$target
    mkdir -p "$grown" "$CARGO_TARGET_DIR/findings/$target"
    dict=fuzz/dictionaries/$target.dict
    # A row of some fifty events; a longer one finds the same, and takes longer.
    # Each has thousands of features, and libFuzzer's weighing of rare ones looks each up in a list: it took three fifths of the time.
    longest=${MAX_LEN:-4096}
    weighing=1
    [ "$target" != gateway_events ] || { longest=192; weighing=0; }
    out=$CARGO_TARGET_DIR/$target.out
    # What is new grows beside the committed corpus: MINIMISE=1 then takes what adds coverage over.
    nice -n 19 "$CARGO_TARGET_DIR/$host/release/$target" "$grown" "fuzz/corpus/$target" \
        -artifact_prefix="$CARGO_TARGET_DIR/findings/$target/" -max_total_time="$seconds" -max_len="$longest" -entropic=$weighing \
        -print_final_stats=1 -timeout=10 -rss_limit_mb=1024 $([ -f "$dict" ] && echo "-dict=$dict") >"$out" 2>&1 || {
        failed=1
        echo "fuzz: $target found something: $CARGO_TARGET_DIR/findings/$target" >&2
        grep -E 'panicked at|ERROR|Test unit written' -A2 "$out" | head -20 >&2
    }
    if [ "${MINIMISE:-}" ]; then
        # The smallest set that covers as much, of inputs a person could still read.
        least=$CARGO_TARGET_DIR/least/$target
        rm -rf "$least" && mkdir -p "$least"
        nice -n 19 "$CARGO_TARGET_DIR/$host/release/$target" -merge=1 -max_len="$longest" "$least" "fuzz/corpus/$target" "$grown" >"$out.merge" 2>&1
        rm -f "fuzz/corpus/$target"/* && cp "$least"/* "fuzz/corpus/$target/"
    fi
    done_units=$(sed -n 's/^stat::number_of_executed_units: *//p' "$out")
    echo "$(date -u +%FT%TZ) $target ${done_units:-0} $seconds" >>"$log"
    printf '%-16s %12s executions in %4s s\n' "$target" "${done_units:-?}" "$seconds"
done
awk '{ of[$2] += $3; all += $3 } END { for (t in of) printf "%-16s %14d in all runs\n", t, of[t] | "sort"; close("sort"); printf "%-16s %14d\n", "together", all }' "$log"
exit "$failed"
