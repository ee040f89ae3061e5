#!/usr/bin/env bash
# need-release.sh FOLDER PROGRAM…: refuses to install what was not built.
set -eu
folder=$1; shift
for program in "$@"; do
    if [ ! -x "$folder/$program" ]; then
        echo "install: $folder/$program is missing; run \`make release\` first" >&2
        exit 1
    fi
done
