#!/usr/bin/env bash
# Measures the worker over JetStream beside the evaluator alone, then the store beside raw operations, and
# prints Markdown.
#   BENCH=worker|store   only one of the two
#   RULES=PATH    Sigma rules beside the project's own: a .tar.gz of YAML files, or a folder
#   EVENTS=PATH   events, one JSON object a line; or how many to generate (60000)
#   ROUNDS=3      how often worker and evaluator take turns
set -euo pipefail
cd "$(dirname "$0")/.."

case ${BENCH:=worker store} in
worker | store | 'worker store') ;;
*) echo "BENCH is worker or store, not $BENCH" >&2 && exit 2 ;;
esac

args=(--rounds "${ROUNDS:-3}")
[ -z "${RULES:-}" ] || args+=(--rules "$RULES")
case ${EVENTS:-} in
'') ;;
*[!0-9]*) args+=(--events "$EVENTS") ;;
*) args+=(--count "$EVENTS") ;;
esac

# As a release is built: both programs are optimised alike.
cargo build --profile dist --package lookback --package lookback-dev
dev=target/x86_64-unknown-linux-musl/dist/lookback-dev
case $BENCH in *worker*) $dev bench "${args[@]}" ;; esac
case $BENCH in *store*) $dev bench-store ;; esac
