#!/usr/bin/env bash
# Counts the instructions of the core's paths and compares them with tests/instructions.txt: time on a shared machine says
# little, a count says the same everywhere. Neither the refusal of a stranger nor a knock that opens a session may grow by more
# than 5 %; the other is told.
# `ACCEPT=1 tests/tools/instructions.sh` (make instructions) writes the file anew: say in the commit why it grew.
set -eu
cd "$(dirname "$0")/../.."
baseline=tests/instructions.txt
program=${CARGO_TARGET_DIR:-target}/debug/instructions

if ! command -v valgrind >/dev/null; then
    echo "SKIPPED: instruction counts need valgrind (apt-get install valgrind)"
    exit 0
fi
if [ ! -x "$program" ]; then
    echo "instructions: $program is not there; run \`make build\` first" >&2
    exit 1
fi

counted() {
    # Without a cache model: "Collected" is the number of instructions alone.
    valgrind --vgdb=no --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 </dev/null |
        sed -n 's/.*Collected *: *\([0-9]*\).*/\1/p'
}

# One packet: the difference of two runs, so that the start is no part of it.
each() {
    local path=$1 few=$2 many=$3 low high
    low=$(counted "$path" "$few")
    high=$(counted "$path" "$many")
    [ -n "$low" ] && [ -n "$high" ] || { echo "instructions: valgrind counted nothing for $path" >&2; exit 1; }
    echo $(((high - low) / (many - few)))
}

failed=0
lines=()
while read -r path few many gate; do
    [ -n "$path" ] || continue
    now=$(each "$path" "$few" "$many")
    lines+=("$path $now")
    before=$(sed -n "s/^$path \([0-9]*\)$/\1/p" "$baseline" 2>/dev/null || true)
    if [ -z "$before" ]; then
        echo "$path: $now instructions a packet, no figure to compare with"
        continue
    fi
    change=$(awk -v now="$now" -v before="$before" 'BEGIN { printf "%+.1f", (now - before) * 100 / before }')
    echo "$path: $now instructions a packet ($change % against $baseline)"
    if [ "$gate" = gated ] && [ "${ACCEPT:-}" != 1 ] && [ $((now * 100)) -gt $((before * 105)) ]; then
        echo "$path: more than 5 % above $before; make it cheaper, or accept it with \`make instructions\` and say why" >&2
        failed=1
    fi
done <<PATHS
stranger 100 1100 gated
bad-mac 20 120 told
open 1 5 gated
PATHS

if [ "${ACCEPT:-}" = 1 ]; then
    {
        echo "# Instructions a packet costs the core, in the dev profile (make instructions)."
        printf '%s\n' "${lines[@]}"
    } >"$baseline"
fi
exit "$failed"
