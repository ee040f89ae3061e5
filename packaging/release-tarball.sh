#!/usr/bin/env bash
# `make release-tarball`: the source archive that the OpenWrt packages are built from, the same bytes from the same commit, and its hash.
# URL=https://… writes address and hash into their Makefiles, URL being the folder that will hold the archive.
# Those files are left out of the archive, for they name its hash.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release-tarball
archive=$out/spa-gateway-$version.tar.gz
mkdir -p "$out"
git archive --format=tar --prefix="spa-gateway-$version/" HEAD -- . ':!packaging/openwrt' | gzip -9n >"$archive"
hash=$(sha256sum "$archive" | cut -d' ' -f1)
echo "$archive"
echo "PKG_HASH:=$hash"
if [ -n "${URL:-}" ]; then
    case $URL in https://*) ;; *) echo "release-tarball: URL=$URL is no https address" >&2; exit 2 ;; esac
    sed -i "s|^PKG_VERSION:=.*|PKG_VERSION:=$version|; s|^PKG_SOURCE_URL:=.*|PKG_SOURCE_URL:=${URL%/}/|; s|^PKG_HASH:=.*|PKG_HASH:=$hash|" \
        packaging/openwrt/net/*/Makefile
    echo "written into packaging/openwrt/net; upload the archive to ${URL%/}/"
fi
