#!/usr/bin/env bash
# Runs the ProVerif models of spa-proto/model and compares with the expected answers. PROVERIF=/path if it is not on PATH.
set -eu
cd "$(dirname "$0")/../../spa-proto/model"
proverif=${PROVERIF:-proverif}
if ! command -v "$proverif" >/dev/null || ! command -v python3 >/dev/null; then
    echo "model: SKIPPED, NOTHING WAS PROVED: proverif or python3 is not here; \`opam install proverif\`, or PROVERIF=/path make model" >&2
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp gen.py "$work"
(cd "$work" && PROVERIF=$proverif python3 gen.py run)
for model in *.pv; do
    cmp -s "$model" "$work/$model" || { echo "model: $model is not what gen.py writes" >&2; exit 1; }
done
! grep -v '^ok ' "$work/results.txt"
