#!/usr/bin/env bash
# Writes a software bill of materials (CycloneDX 1.5, JSON) of each program to target/sbom: every crate that is linked into it,
# with version, licence and checksum, from Cargo's own metadata.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
out=${1:-${CARGO_TARGET_DIR:-target}/sbom}
command -v python3 >/dev/null || { echo "sbom: python3 is not here; install it" >&2; exit 1; }
mkdir -p "$out"
metadata=$(mktemp)
trap 'rm -f "$metadata"' EXIT
"$cargo" metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" >"$metadata"
python3 - "$metadata" "$out" <<'PYTHON'
import json, re, sys

metadata = json.load(open(sys.argv[1]))
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
lock = open("Cargo.lock").read()
sums = {(n, v): s for n, v, s in re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"\nsource = "[^"]+"\nchecksum = "([^"]+)"', lock)}


def linked(root):
    """Everything a program links: normal dependencies, followed to the end."""
    seen, left = set(), [root]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        for dep in nodes[one]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                left.append(dep["pkg"])
    return seen


def component(package, kind="library"):
    name, version = package["name"], package["version"]
    entry = {"type": kind, "bom-ref": f"{name}@{version}", "name": name, "version": version, "purl": f"pkg:cargo/{name}@{version}"}
    if package.get("license"):
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if (name, version) in sums:
        entry["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
    return entry


for program in ("spa-client", "spa-gateway", "spa-enforcer", "spa-tunnel"):
    root = next(p for p in packages.values() if p["name"] == program)
    all_of = linked(root["id"])
    ref = lambda one: f'{packages[one]["name"]}@{packages[one]["version"]}'
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root, "application")},
        "components": sorted((component(packages[one]) for one in all_of if one != root["id"]), key=lambda c: c["bom-ref"]),
        "dependencies": sorted(
            ({"ref": ref(one), "dependsOn": sorted(ref(dep["pkg"]) for dep in nodes[one]["deps"] if dep["pkg"] in all_of)} for one in all_of),
            key=lambda d: d["ref"],
        ),
    }
    path = f"{sys.argv[2]}/{program}.cdx.json"
    json.dump(bom, open(path, "w"), indent=1)
    print(f'{path}: {len(bom["components"])} crates')
PYTHON
