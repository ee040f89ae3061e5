#!/usr/bin/env bash
# Runs the models of spa-proto/model and compares with the expected answers: ProVerif's, which prove, and one for Verifpal, which searches.
# Each is skipped, loudly, where its tool is not: PROVERIF=/path or VERIFPAL=/path if it is not on PATH; ONLY="01 02" runs these of ProVerif's alone.
set -eu
cd "$(dirname "$0")/../../spa-proto/model"
proverif=${PROVERIF:-proverif}
verifpal=${VERIFPAL:-verifpal}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wrong=0

if ! command -v "$proverif" >/dev/null || ! command -v python3 >/dev/null; then
    echo "model: SKIPPED, NOTHING WAS PROVED: proverif or python3 is not here; \`opam install proverif\`, or PROVERIF=/path make model" >&2
else
    cp gen.py "$work"
    # shellcheck disable=SC2086 # A list of names.
    (cd "$work" && PROVERIF=$proverif python3 gen.py run ${ONLY:-})
    for model in *.pv; do
        cmp -s "$model" "$work/$model" || { echo "model: $model is not what gen.py writes" >&2; [ "${ONLY:-}" ] || exit 1; }
    done
    ! grep -hv '^ok ' "$work"/results*.txt || wrong=1
fi

[ -z "${ONLY:-}" ] || exit "$wrong"
if ! command -v "$verifpal" >/dev/null; then
    echo "model: Verifpal SKIPPED: it is not here; \`cargo install --locked --ignore-rust-version verifpal@1.6.7\`, or VERIFPAL=/path make model" >&2
    exit "$wrong"
fi
while read -r name sessions expected; do
    sed "s|// if $name: ||" verifpal/knock.vp >"$work/$name.vp"
    answer=$("$verifpal" verify --quiet --result-code --sessions "$sessions" "$work/$name.vp" </dev/null 2>&1 | tail -1)
    if [ "$answer" = "$expected" ]; then
        echo "ok verifpal $name, sessions: $sessions: $answer"
    else
        echo "DIFF verifpal $name, sessions: $sessions: $answer, expected $expected" >&2
        wrong=1
    fi
done <verifpal/expected
exit "$wrong"
