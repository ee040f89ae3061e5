#!/usr/bin/env bash
# Runs the ProVerif models of spa-proto/model and compares with the expected answers. PROVERIF=/path if it is not on PATH;
# ONLY="01 02" runs those alone.
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
# shellcheck disable=SC2086 # A list of names.
(cd "$work" && PROVERIF=$proverif python3 gen.py run ${ONLY:-})
for model in *.pv; do
    cmp -s "$model" "$work/$model" || { echo "model: $model is not what gen.py writes" >&2; [ "${ONLY:-}" ] || exit 1; }
done
! grep -hv '^ok ' "$work"/results*.txt
