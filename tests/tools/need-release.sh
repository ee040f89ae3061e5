#!/usr/bin/env bash
# need-release.sh FOLDER PROGRAM…: refuses to install what was not built, or was built for tests.
set -eu
folder=$1; shift
for program in "$@"; do
    if [ ! -x "$folder/$program" ]; then
        echo "install: $folder/$program is missing; run \`make release\` first" >&2
        exit 1
    fi
    if grep -q -e SPA_PAUSE_AT -e SPA_CLOCK_SHIFT "$folder/$program"; then
        echo "install: $folder/$program is a build for tests, which can be stopped from outside; run \`make release\` without debug assertions" >&2
        exit 1
    fi
done
