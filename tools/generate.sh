#!/usr/bin/env bash
# Writes what is generated from code. With --check it writes nothing, and fails where files differ.
set -euo pipefail
cd "$(dirname "$0")/.."

generated() {
    cargo run --quiet --package lookback --bin lookback -- crds >"$1/crds.yaml"
    mv "$1/crds.yaml" "$1/detectionpipelines.lookback.dev.yaml"
}

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
generated "$fresh"
if [ "${1:-}" = --check ]; then
    diff -ru crds "$fresh" || { echo "generated files differ: run make generate and commit crds/" >&2; exit 1; }
else
    cp "$fresh"/* crds/
fi
