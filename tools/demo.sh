#!/usr/bin/env bash
# The main job on a real local cluster: events are published, the worker is killed in their midst, and
# the stored alerts are compared with one uninterrupted pass over the stream. It begins with a new
# cluster and leaves it running, to look around.
#   EVENTS=60000  how many events
#   RULES=FILE    more rules, a .tar.gz of Sigma YAML files, beside the project's own
set -euo pipefail
cd "$(dirname "$0")/.."

events=${EVENTS:-60000}
cluster=.bin/localcluster
dev=target/x86_64-unknown-linux-musl/debug/lookback-dev
work=.run/demo
namespace=demo
pipeline=edr

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
kubectl() { "$cluster" kubectl "$@"; }

if [ "$(id -u)" != 0 ]; then
    echo "the demo runs real pods, which needs root: run it as root" >&2
    exit 2
fi
rm -rf "$work" && mkdir -p "$work/rules"

say "Building the programs and the image"
tools/image.sh

say "Starting Kubernetes and NATS"
"$cluster" down
"$cluster" up --nats
eval "$("$cluster" env)"
"$cluster" load-image .run/image.tar

say "Installing the operator from deploy/"
kubectl apply -k deploy/overlays/local
kubectl -n lookback-system rollout status deployment/lookback-operator --timeout 120s

say "Publishing the first half of $events events"
"$dev" publish --nats "$NATS_URL" --count $((events / 2)) --poison 10

say "Applying rules and a DetectionPipeline"
kubectl create namespace "$namespace"
cp deploy/examples/rules/*.yml "$work/rules/"
kubectl -n "$namespace" create configmap sigma-rules --from-file=deploy/examples/rules
config_maps='{name: sigma-rules}'
if [ -n "${RULES:-}" ]; then
    # A ConfigMap holds at most 1 MiB, so the archive is packed anew in parts.
    mkdir "$work/unpacked"
    tar -xzf "$RULES" -C "$work/unpacked"
    (cd "$work/unpacked" && find . -name '*.yml' | sort | split -l 800 - ../part-)
    for list in "$work"/part-*; do
        part=more-rules-${list##*-}
        tar -czf "$work/rules/$part.tar.gz" -C "$work/unpacked" -T "$list"
        kubectl -n "$namespace" create configmap "$part" --from-file="$work/rules/$part.tar.gz"
        config_maps+=", {name: $part}"
    done
fi
kubectl apply -f - <<YAML
apiVersion: lookback.dev/v1alpha1
kind: DetectionPipeline
metadata: {name: $pipeline, namespace: $namespace}
spec:
  nats: {urls: ["$NATS_POD_URL"]}
  source: {stream: EVENTS, start: Earliest, logsource: {product: windows}}
  rules: {configMaps: [$config_maps], processing: [sysmon]}
  state: {storage: {size: 1Gi, accessMode: ReadWriteOnce}}
  deletionPolicy: Delete
YAML
kubectl get detectionpipelines --all-namespaces

say "Publishing the second half, and killing the worker (SIGKILL) in the middle of it"
"$dev" publish --nats "$NATS_URL" --count "$events" --skip $((events / 2)) --poison 10 --rate $((events / 20 + 1)) &
publisher=$!
"$dev" wait --nats "$NATS_URL" --pipeline "$namespace/$pipeline" --through $((events * 6 / 10))
"$cluster" exec -- pkill -KILL -f '^/lookback worker'
echo "killed the worker"
wait "$publisher"
"$dev" wait --nats "$NATS_URL" --pipeline "$namespace/$pipeline" --through "$events"
kubectl -n "$namespace" get pods
kubectl -n "$namespace" get detectionpipelines

say "Comparing with one uninterrupted pass over the stream"
config=$(kubectl -n "$namespace" get statefulset "$pipeline" \
    -o 'jsonpath={.spec.template.spec.volumes[?(@.name=="config")].configMap.name}')
kubectl -n "$namespace" get configmap "$config" -o 'jsonpath={.data.config\.json}' >"$work/config.json"
"$dev" oracle --nats "$NATS_URL" --config "$work/config.json" --rules "$work/rules" --through "$events" >"$work/oracle.json"
"$dev" compare --nats "$NATS_URL" --pipeline "$namespace/$pipeline" --oracle "$work/oracle.json"
