#!/usr/bin/env bash
# Writes what is generated from code. With --check it writes nothing, and fails where files differ.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${1:-}" = --check ] || export LOOKBACK_GENERATE=1
# Of the whole workspace: a single package would be built with other features, and all it depends on again.
cargo test --quiet --workspace --lib -- generated
