#!/usr/bin/env bash
# Stops the demo's cluster and removes what builds left in the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -x .bin/localcluster ]; then
    .bin/localcluster down
fi
rm -rf target .bin .run
