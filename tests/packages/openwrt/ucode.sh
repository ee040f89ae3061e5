#!/usr/bin/env bash
# ucode.sh [SCRIPT ARGUMENT…]: ucode's own interpreter, installed here, or built in the folder UCODE. Without a script it says which; nothing where there is none.
set -eu
interpreter=$(command -v "${UCODE:+$UCODE/}ucode" || true)
[ $# -gt 0 ] || { echo "$interpreter"; exit 0; }
exec "$interpreter" ${UCODE:+-L "$UCODE/*.so"} -R "$@"
