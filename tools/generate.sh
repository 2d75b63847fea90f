#!/usr/bin/env bash
# Writes what is generated from code. With --check it writes nothing, and fails where files differ.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${1:-}" = --check ] || export LOOKBACK_GENERATE=1
cargo test --quiet --package lookback --lib -- api::generated
