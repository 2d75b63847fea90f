package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
)

// The addresses of the node's network. They exist only in the node's own namespace, so every
// cluster has the same.
const (
	bridge            = "lookback0"
	nodeAddress       = "10.244.0.1" // the bridge: node, API server and NATS as pods see them
	nodePrefix        = nodeAddress + "/24"
	podRange          = "10.244.0.0/24"
	serviceRange      = "10.96.0.0/16"
	apiServiceAddress = "10.96.0.1"
	loopback          = "127.0.0.1"
	nodeName          = "local"
	pauseImage        = "lookback.dev/pause:1"
	storageClass      = "local"
	provisioner       = "lookback.dev/local"
	nodeAPIPort       = 6443
	nodeEtcdPort      = 2379
	nodeEtcdPeerPort  = 2380
	natsPort          = 4222
	natsMonitorPort   = 8222
)

// layout is where the parts of a cluster find each other, as they see it themselves.
type layout struct {
	cluster
	settings
	apiBind      string // the address the API server listens on
	apiAdvertise string // the address under which pods reach it
	apiPort      int
	etcdPort     int
	etcdPeerPort int
	// sharePorts lets a program listen on a port that its supervisor holds for it.
	sharePorts bool
	// reconciler keeps the endpoints of the `kubernetes` Service; a loopback address cannot be one.
	reconciler string
}

func layoutOf(c cluster, s settings) layout {
	if s.Size == fullNode {
		return layout{
			cluster: c, settings: s, apiBind: "0.0.0.0", apiAdvertise: nodeAddress,
			apiPort: nodeAPIPort, etcdPort: nodeEtcdPort, etcdPeerPort: nodeEtcdPeerPort, reconciler: "lease",
		}
	}
	return layout{
		cluster: c, settings: s, apiBind: loopback, apiAdvertise: loopback,
		apiPort: s.Ports.API, etcdPort: s.Ports.Etcd, etcdPeerPort: s.Ports.EtcdPeer, sharePorts: true,
		reconciler: "none",
	}
}

// kubeconfigFile is for the host; nodeKubeconfigFile for the programs of the cluster.
func (c cluster) kubeconfigFile() string     { return c.path("kubeconfig") }
func (c cluster) nodeKubeconfigFile() string { return c.path("node.kubeconfig") }
func (c cluster) controlSocket() string      { return c.path("control.sock") }
func (c cluster) natsStore() string          { return c.path("nats") }
func (c cluster) log(name string) string     { return c.path("logs", name+".log") }

// containerdSocket is in a folder that only the node's mount namespace has, where its path is
// short whatever the checkout's is: a socket's path ends at 107 bytes.
const containerdSocket = "/run/containerd/containerd.sock"

// kubeletFolder is where the node shows the `kubelet` folder of the run.
const kubeletFolder = "/var/lib/kubelet"

func (l layout) kube(name string) string { return filepath.Join(l.Programs.Kube, name) }

func (l layout) apiURL() string {
	return "https://" + net.JoinHostPort(loopback, strconv.Itoa(l.apiPort))
}

func (l layout) etcdURL() string { return fmt.Sprintf("http://%s:%d", loopback, l.etcdPort) }
