package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"text/template"
)

// writeNodeConfig writes the files that containerd, its network plugins and the kubelet read.
func (l layout) writeNodeConfig(cniFolder, snapshotter string) error {
	containerd, err := containerdConfig(l, cniFolder, snapshotter)
	if err != nil {
		return err
	}
	network, err := networkConfig(l)
	if err != nil {
		return err
	}
	kubelet, err := kubeletConfig(l)
	if err != nil {
		return err
	}
	for file, content := range map[string][]byte{
		"containerd.toml":      containerd,
		"cni/10-pods.conflist": network,
		"kubelet.yaml":         kubelet,
		// Pods have no cluster DNS; without a name server a lookup fails at once.
		"resolv.conf": nil,
	} {
		if err := writeFile(l.path(file), content); err != nil {
			return err
		}
	}
	return nil
}

// restrict_oom_score_adj: without CAP_SYS_RESOURCE, as in many containers, every sandbox fails.
var containerdTemplate = template.Must(template.New("containerd.toml").Parse(`version = 2
root = {{printf "%q" .Root}}
state = "/run/containerd/state"
[grpc]
address = {{printf "%q" .Socket}}
[plugins."io.containerd.internal.v1.opt"]
path = {{printf "%q" .Opt}}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {{printf "%q" .PauseImage}}
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {{printf "%q" .CNIFolder}}
conf_dir = {{printf "%q" .CNIConfig}}
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = {{printf "%q" .Snapshotter}}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
`))

func containerdConfig(l layout, cniFolder, snapshotter string) ([]byte, error) {
	var out bytes.Buffer
	err := containerdTemplate.Execute(&out, map[string]string{
		"Root": l.path("containerd"), "Opt": l.path("containerd-opt"), "Socket": containerdSocket,
		"PauseImage": pauseImage, "CNIFolder": cniFolder, "CNIConfig": l.path("cni"), "Snapshotter": snapshotter,
	})
	if err != nil {
		return nil, fmt.Errorf("render containerd's configuration: %w", err)
	}
	return out.Bytes(), nil
}

type object = map[string]any

// networkConfig joins pods to the node's bridge. ipMasq stays off: pods talk to this node only.
func networkConfig(l layout) ([]byte, error) {
	return encode("the pod network", object{
		"cniVersion": "0.4.0",
		"name":       "pods",
		"plugins": []object{{
			"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false, "hairpinMode": true,
			"ipam": object{
				"type":    "host-local",
				"dataDir": l.path("cni-addresses"),
				"ranges":  [][]object{{{"subnet": podRange}}},
				"routes":  []object{{"dst": "0.0.0.0/0"}},
			},
		}},
	})
}

func kubeletConfig(l layout) ([]byte, error) {
	return encode("the kubelet's configuration", object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"address":    nodeAddress,
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": l.path("pki", "ca.crt")},
		},
		"authorization":            object{"mode": "Webhook"},
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               l.cgroup(),
		"cgroupsPerQOS":            true,
		"enforceNodeAllocatable":   []string{},
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"failSwapOn":               false,
		"failCgroupV1":             false,
		"makeIPTablesUtilChains":   false,
		"protectKernelDefaults":    true,
		"oomScoreAdj":              0,
		"evictionHard": object{
			"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
		},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		// Loopback: a pod's lookup fails at once, and the kubelet does not warn of a missing DNS.
		"clusterDNS":                []string{loopback},
		"clusterDomain":             "cluster.local",
		"resolvConf":                l.path("resolv.conf"),
		"podLogsDir":                l.path("pod-logs"),
		"volumePluginDir":           l.path("volume-plugins"),
		"nodeStatusUpdateFrequency": "4s",
		"syncFrequency":             "2s",
		"volumeStatsAggPeriod":      "10s",
	})
}

// storageClassObject is the default class: a folder on the node, made when the scheduler has
// chosen it and removed with the claim.
func storageClassObject() ([]byte, error) {
	return encode("the StorageClass", object{
		"apiVersion": "storage.k8s.io/v1",
		"kind":       "StorageClass",
		"metadata": object{
			"name":        storageClass,
			"annotations": object{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		"provisioner":       provisioner,
		"reclaimPolicy":     "Delete",
		"volumeBindingMode": "WaitForFirstConsumer",
	})
}

func encode(what string, value any) ([]byte, error) {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	return append(content, '\n'), nil
}

// writeAccess writes the administrator's token and a kubeconfig for each side.
func (l layout) writeAccess() error {
	tokens := l.Token + ",admin,admin,system:masters\n"
	if err := writeFile(l.path("pki", "tokens.csv"), []byte(tokens)); err != nil {
		return err
	}
	ca, err := os.ReadFile(l.path("pki", "ca.crt"))
	if err != nil {
		return fmt.Errorf("read the certificate of the authority: %w", err)
	}
	fromHost := fmt.Sprintf("https://%s:%d", loopback, l.Ports.API)
	if err := writeFile(l.kubeconfigFile(), kubeconfig(l.Name, fromHost, ca, l.Token)); err != nil {
		return err
	}
	return writeFile(l.nodeKubeconfigFile(), kubeconfig(l.Name, l.apiURL(), ca, l.Token))
}

func kubeconfig(name, server string, ca []byte, token string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: admin
  user:
    token: %[4]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: admin
current-context: %[1]s
`, name, server, base64.StdEncoding.EncodeToString(ca), token)
}
