#!/usr/bin/env bash
# Each page below DIR/pages as a real browser draws it: a picture in target/screenshots, and the word of the page that it was drawn.
# Chromium is Debian's, in a root of its own unless there is one here.
set -eu
dir=$1
out=$(cd "$(dirname "$0")/../../.." && pwd)/target/screenshots
flags=(--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --user-data-dir=/tmp/spa-chromium --virtual-time-budget=2000 --window-size=1100,700)
mkdir -p "$out"
holder=
end() { [ -z "$holder" ] || kill "$holder" 2>/dev/null || true; }
trap end EXIT
if command -v chromium >/dev/null; then
    browse() { chromium "$@"; }
    pages=$dir/pages
    shots=$out
else
    [ "$(id -u)" = 0 ] || { echo "SKIPPED, NOT PASSED: no chromium for the views of LuCI"; exit 0; }
    : >"$dir/foreign.log"
    unshare --mount --propagation private "$(dirname "$0")/../../tools/foreign-root.sh" "$dir/foreign" chromium >"$dir/foreign.log" 2>&1 &
    holder=$!
    for _ in $(seq 300); do
        grep -qE '^ready|SKIPPED' "$dir/foreign.log" && break
        sleep 1
    done
    grep -q '^ready' "$dir/foreign.log" || { cat "$dir/foreign.log"; echo "SKIPPED, NOT PASSED: no chromium for the views of LuCI"; exit 0; }
    root=$dir/foreign/root
    browse() { nsenter --mount --target "$holder" chroot "$root" chromium "$@"; }
    # What is below /tmp here is there too.
    pages=$dir/pages
    shots=$dir/pages
fi
for page in "$dir"/pages/*.html; do
    name=$(basename "$page" .html)
    browse "${flags[@]}" --dump-dom "file://$pages/$name.html" 2>/dev/null | grep -q '<title>drawn</title>' || { echo "FAILED: $name is not drawn" >&2; exit 1; }
    browse "${flags[@]}" "--screenshot=$shots/$name.png" "file://$pages/$name.html" >/dev/null 2>&1
    if [ -n "$holder" ]; then
        nsenter --mount --target "$holder" cat "$root/$shots/$name.png" >"$out/$name.png"
    fi
    [ -s "$out/$name.png" ] || { echo "FAILED: no picture of $name" >&2; exit 1; }
done
echo "drawn by a browser: $out"
