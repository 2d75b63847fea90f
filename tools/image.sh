#!/usr/bin/env bash
# Builds the image of the program as an OCI archive, without Docker, into .run/image.tar.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --workspace --bins
mkdir -p .run
.bin/localcluster make-image --ref "${IMAGE:-lookback.dev/lookback:dev}" --out .run/image.tar \
    --entrypoint /lookback target/x86_64-unknown-linux-musl/debug/lookback:/lookback
