#!/usr/bin/env bash
# Measures the worker over JetStream beside the evaluator alone, and prints Markdown.
#   RULES=PATH    Sigma rules beside the project's own: a .tar.gz of YAML files, or a folder
#   EVENTS=PATH   events, one JSON object a line; or how many to generate (60000)
#   ROUNDS=3      how often the two take turns
set -euo pipefail
cd "$(dirname "$0")/.."

args=(--rounds "${ROUNDS:-3}")
[ -z "${RULES:-}" ] || args+=(--rules "$RULES")
case ${EVENTS:-} in
'') ;;
*[!0-9]*) args+=(--events "$EVENTS") ;;
*) args+=(--count "$EVENTS") ;;
esac

# As a release is built: both programs are optimised alike.
cargo build --profile dist --package lookback --package lookback-dev
exec target/x86_64-unknown-linux-musl/dist/lookback-dev bench "${args[@]}"
