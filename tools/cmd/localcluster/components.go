package main

import (
	"fmt"
	"strconv"
)

// command is a program of the cluster that the supervisor runs.
type command struct {
	name string
	path string
	args []string
}

func etcdCommand(l layout) command {
	peer := fmt.Sprintf("http://%s:%d", loopback, l.etcdPeerPort)
	args := []string{
		"--data-dir=" + l.path("etcd"),
		"--listen-client-urls=" + l.etcdURL(), "--advertise-client-urls=" + l.etcdURL(),
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		"--unsafe-no-fsync", // the data ends with the cluster
		"--log-level=warn",
	}
	if l.sharePorts {
		args = append(args, "--socket-reuse-port")
	}
	return command{name: "etcd", path: l.kube("etcd"), args: args}
}

func apiServerCommand(l layout) command {
	args := []string{
		"--etcd-servers=" + l.etcdURL(),
		"--bind-address=" + l.apiBind,
		"--secure-port=" + strconv.Itoa(l.apiPort),
		"--advertise-address=" + l.apiAdvertise,
		"--endpoint-reconciler-type=" + l.reconciler,
		"--cert-dir=" + l.path("pki"),
		"--tls-cert-file=" + l.path("pki", "apiserver.crt"),
		"--tls-private-key-file=" + l.path("pki", "apiserver.key"),
		"--client-ca-file=" + l.path("pki", "ca.crt"),
		"--kubelet-client-certificate=" + l.path("pki", "kubelet-client.crt"),
		"--kubelet-client-key=" + l.path("pki", "kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-cluster-ip-range=" + serviceRange,
		"--service-account-key-file=" + l.path("pki", "service-accounts.key"),
		"--service-account-signing-key-file=" + l.path("pki", "service-accounts.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--token-auth-file=" + l.path("pki", "tokens.csv"),
		"--authorization-mode=Node,RBAC",
		"--allow-privileged=true",
		"--profiling=false",
	}
	if l.sharePorts {
		args = append(args, "--permit-port-sharing")
	}
	return command{name: "kube-apiserver", path: l.kube("kube-apiserver"), args: args}
}

func controllerManagerCommand(l layout) command {
	args := []string{
		"--kubeconfig=" + l.nodeKubeconfigFile(),
		"--service-account-private-key-file=" + l.path("pki", "service-accounts.key"),
		"--root-ca-file=" + l.path("pki", "ca.crt"),
		"--leader-elect=false",
		"--profiling=false",
	}
	if l.Size == controlPlane {
		args = append(args, "--secure-port=0") // nobody asks it anything, and the port would clash
	} else {
		args = append(args, "--bind-address="+loopback, "--flex-volume-plugin-dir="+l.path("volume-plugins"))
	}
	return command{name: "kube-controller-manager", path: l.kube("kube-controller-manager"), args: args}
}

func schedulerCommand(l layout) command {
	return command{name: "kube-scheduler", path: l.kube("kube-scheduler"), args: []string{
		"--kubeconfig=" + l.nodeKubeconfigFile(),
		"--leader-elect=false",
		"--bind-address=" + loopback,
		"--profiling=false",
	}}
}

func kubeletCommand(l layout) command {
	return command{name: "kubelet", path: l.kube("kubelet"), args: []string{
		"--config=" + l.path("kubelet.yaml"),
		"--kubeconfig=" + l.nodeKubeconfigFile(),
		"--root-dir=" + kubeletFolder,
		"--cert-dir=" + kubeletFolder + "/pki",
		"--hostname-override=" + nodeName,
		"--node-ip=" + nodeAddress,
	}}
}

func proxyCommand(l layout) command {
	return command{name: "kube-proxy", path: l.kube("kube-proxy"), args: []string{
		"--kubeconfig=" + l.nodeKubeconfigFile(),
		"--hostname-override=" + nodeName,
		"--proxy-mode=nftables",
		"--cluster-cidr=" + podRange,
		// Two pods of one bridge see each other on layer 2. An answer that goes past the node would
		// carry the pod's address instead of the Service's, so the node puts itself in between.
		"--masquerade-all=true",
		// These limits are the host's, not the namespace's.
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0",
		"--conntrack-tcp-timeout-close-wait=0",
		"--oom-score-adj=0",
		"--metrics-bind-address=" + loopback,
		"--healthz-bind-address=" + loopback,
	}}
}

func provisionerCommand(l layout) command {
	return command{name: "local-provisioner", path: l.kube("local-provisioner"), args: []string{
		"--kubeconfig=" + l.nodeKubeconfigFile(),
		"--root=" + l.path("volumes"),
	}}
}

func containerdCommand(l layout) command {
	return command{name: "containerd", path: "containerd", args: []string{"--config", l.path("containerd.toml")}}
}

func natsCommand(l layout) command {
	return command{name: "nats-server", path: l.Programs.NATSServer, args: []string{
		"--addr", nodeAddress, "--port", strconv.Itoa(natsPort), "--http_port", strconv.Itoa(natsMonitorPort),
		"--jetstream", "--store_dir", l.natsStore(),
	}}
}
