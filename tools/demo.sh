#!/usr/bin/env bash
# The main job on a real cluster: events are published, the worker is killed in their midst, and the
# stored alerts are compared with one uninterrupted pass over the stream. Then the pipeline is told to
# replay, over and over, with another kill: it runs once, and the alerts and windows are the same.
# What it made is left running, to look around.
#   EVENTS=60000      how many events
#   RULES=FILE        more rules, a .tar.gz of Sigma YAML files, beside the project's own
#   CLUSTER=local     a real Kubernetes and NATS on this machine, begun anew (root)
#   CLUSTER=current   kubectl's current context, with NATS_URL= and IMAGE=; see tools/demo-cluster.sh
set -euo pipefail
cd "$(dirname "$0")/.."

events=${EVENTS:-60000}
dev=target/x86_64-unknown-linux-musl/debug/lookback-dev
work=.run/demo
pipeline=edr
# shellcheck source=tools/demo-cluster.sh
source tools/demo-cluster.sh

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

check_cluster
rm -rf "$work" && mkdir -p "$work/rules"

say "Building the programs"
build

say "Preparing Kubernetes and NATS"
prepare_cluster

say "Installing the operator from deploy/"
kubectl apply -k "$overlay"
kubectl -n lookback-system rollout status deployment/lookback-operator --timeout 120s

say "Publishing the first half of $events events"
"$dev" publish --nats "$NATS_URL" --stream "$stream" --new --count $((events / 2)) --poison 10

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
cat >"$work/pipeline.yaml" <<YAML
apiVersion: lookback.dev/v1alpha1
kind: DetectionPipeline
metadata: {name: $pipeline, namespace: $namespace}
spec:
  nats: {urls: ["$NATS_POD_URL"]}
  source: {stream: $stream, start: Earliest, logsource: {product: windows}}
  rules: {configMaps: [$config_maps], processing: [sysmon]}
  state: {storage: {size: 1Gi, accessMode: ReadWriteOnce}}
  deletionPolicy: Delete
YAML
kubectl apply -f "$work/pipeline.yaml"
kubectl get detectionpipelines --all-namespaces

say "Publishing the second half, and killing the worker (SIGKILL) in the middle of it"
"$dev" publish --nats "$NATS_URL" --stream "$stream" --count "$events" --skip $((events / 2)) --poison 10 --rate $((events / 20 + 1)) &
publisher=$!
"$dev" wait --nats "$NATS_URL" --pipeline "$namespace/$pipeline" --through $((events * 6 / 10))
kill_worker
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

say "Replaying from a quarter of the stream on: the same manifest applied three times, the worker killed"
cat >>"$work/pipeline.yaml" <<YAML
  replay: {fromSequence: $((events / 4)), statePolicy: Rebuild}
YAML
kubectl apply -f "$work/pipeline.yaml"
kubectl -n "$namespace" wait "detectionpipeline/$pipeline" --for=jsonpath='{.status.replay.phase}'=CatchingUp --timeout 120s
kill_worker
echo "killed the worker"
kubectl apply -f "$work/pipeline.yaml"
kubectl -n "$namespace" wait "detectionpipeline/$pipeline" --for=jsonpath='{.status.replay.phase}'=Completed --timeout 300s
# A manifest whose text differs asks for the same request: its id is made of what it asks for.
sed 's/^  replay:.*/  replay: {statePolicy: Rebuild, fromSequence: '$((events / 4))', approval: Automatic}/' \
    "$work/pipeline.yaml" | kubectl apply -f -
"$dev" wait --nats "$NATS_URL" --pipeline "$namespace/$pipeline" --through "$events"
kubectl -n "$namespace" get events --field-selector involvedObject.kind=DetectionPipeline \
    --sort-by=.metadata.creationTimestamp -o custom-columns=REASON:.reason,MESSAGE:.message | grep -i replay

say "Suspending, and comparing alerts and windows with one uninterrupted pass"
kubectl -n "$namespace" patch detectionpipeline "$pipeline" --type merge -p '{"spec":{"suspend":true}}'
kubectl -n "$namespace" wait "detectionpipeline/$pipeline" --for=condition=Suspended --timeout 120s
digest_state >"$work/state.json"
kubectl -n "$namespace" patch detectionpipeline "$pipeline" --type merge -p '{"spec":{"suspend":false}}'
kubectl -n "$namespace" get detectionpipeline "$pipeline" -o yaml | sed -n '/^status:/,$p' >"$work/status.yaml"
epochs=$(grep -m1 '^  epoch:' "$work/status.yaml" | tr -dc 0-9)
echo "epochs: $epochs (the first, and the replay)"
[ "$epochs" = 2 ]
"$dev" compare --nats "$NATS_URL" --pipeline "$namespace/$pipeline" --oracle "$work/oracle.json" --state "$work/state.json"
