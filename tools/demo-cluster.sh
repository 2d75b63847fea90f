# What differs between the clusters the demo can run on; sourced by demo.sh, which holds the story.
#
# CLUSTER=current installs into kubectl's current context. It needs
#   NATS_URL=nats://HOST:4222   a NATS 2.14 or newer with JetStream, reached from here and from the pods
#   NATS_POD_URL=...            how the pods reach it, when that differs
#   IMAGE=REGISTRY/NAME:TAG     the program's image, which the nodes can pull; deploy/Dockerfile builds it
# and makes the namespace lookback-demo and the stream LOOKBACK_DEMO, which must not exist.
# shellcheck shell=bash disable=SC2034,SC2154

local_cluster=.bin/localcluster

# Says what is missing before anything is built.
check_cluster() {
    case "${CLUSTER:-local}" in
    local)
        namespace=demo stream=EVENTS overlay=deploy/overlays/local
        if [ "$(id -u)" != 0 ]; then
            echo "the demo runs real pods, which needs root: run it as root, or set CLUSTER=current" >&2
            exit 2
        fi
        ;;
    current)
        namespace=lookback-demo stream=LOOKBACK_DEMO overlay=$work/overlay
        if [ -z "${NATS_URL:-}" ] || [ -z "${IMAGE:-}" ]; then
            echo "CLUSTER=current needs NATS_URL=nats://HOST:4222, which the pods reach, and IMAGE=REGISTRY/NAME:TAG, which the nodes can pull" >&2
            exit 2
        fi
        command -v kubectl >/dev/null || { echo "CLUSTER=current needs kubectl" >&2; exit 2; }
        command kubectl config current-context >/dev/null
        if command kubectl get namespace "$namespace" >/dev/null 2>&1; then
            echo "namespace $namespace exists: an earlier demo left it; kubectl delete namespace $namespace" >&2
            exit 2
        fi
        NATS_POD_URL=${NATS_POD_URL:-$NATS_URL}
        ;;
    *)
        echo "CLUSTER=$CLUSTER: it is local or current" >&2
        exit 2
        ;;
    esac
}

is_local() { [ "${CLUSTER:-local}" = local ]; }

kubectl() {
    if is_local; then "$local_cluster" kubectl "$@"; else command kubectl "$@"; fi
}

build() {
    if is_local; then
        tools/setup.sh
        tools/image.sh
    else
        tools/setup.sh packages rust
        cargo build --workspace --bins
    fi
}

prepare_cluster() {
    if is_local; then
        "$local_cluster" down
        "$local_cluster" up --nats
        eval "$("$local_cluster" env)"
        "$local_cluster" load-image .run/image.tar
        return
    fi
    mkdir -p "$overlay"
    sed "s#lookback.dev/lookback:dev#$IMAGE#" deploy/overlays/local/image.yaml >"$overlay/image.yaml"
    sed 's#\.\./\.\./base#../../../deploy/base#' deploy/overlays/local/kustomization.yaml >"$overlay/kustomization.yaml"
}

# SIGKILL, as the kernel or a lost node would do it.
kill_worker() {
    if is_local; then
        "$local_cluster" exec -- pkill -KILL -f '^/lookback worker'
    else
        kubectl -n "$namespace" delete pod "$pipeline-0" --grace-period=0 --force --wait=false
    fi
}

# The digest of the state file, by a pod on the volume of the suspended pipeline.
digest_state() {
    local image
    image=$(kubectl -n lookback-system get deployment lookback-operator \
        -o 'jsonpath={.spec.template.spec.containers[0].image}')
    kubectl apply -f - >&2 <<YAML
apiVersion: v1
kind: Pod
metadata: {name: state-digest, namespace: $namespace}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: digest
    image: $image
    args: [state, digest, /var/lib/lookback/state.db]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: state, mountPath: /var/lib/lookback}]
  volumes:
  - name: state
    persistentVolumeClaim: {claimName: state-$pipeline-0}
YAML
    kubectl -n "$namespace" wait pod/state-digest --for=jsonpath='{.status.phase}'=Succeeded --timeout 60s >&2
    kubectl -n "$namespace" logs state-digest
    kubectl -n "$namespace" delete pod state-digest >&2
}
