package main

import "fmt"

const (
	kubernetesVersion = "1.34.4" // go.mod holds the modules of this version
	natsServerVersion = "2.15.2"
)

// program is one thing that `build` can build.
type program struct {
	name string
	// target is a package of this module, or package@version of another one.
	target string
	// sources are files and folders below the module that decide what a package of this module
	// becomes.
	sources []string
	ldflags string
	// links are the names by which the binary is called besides its own.
	links []string
}

// inModule tells whether the program's source is here, so that its packages can be counted.
func (p program) inModule() bool { return len(p.sources) > 0 }

var kubeProgram = program{
	name:    "kube",
	target:  "./cmd/kube",
	sources: []string{"go.mod", "go.sum", "cmd/kube", "internal/provisioner"},
	ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v" + kubernetesVersion +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34",
	links: []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
		"local-provisioner",
	},
}

var natsProgram = program{
	name:    "nats-server",
	target:  "github.com/nats-io/nats-server/v2@v" + natsServerVersion,
	ldflags: "-s -w",
}

var pauseProgram = program{
	name:    "pause",
	target:  "./cmd/pause",
	sources: []string{"go.mod", "cmd/pause"},
	ldflags: "-s -w",
}

func allPrograms() []program { return []program{natsProgram, pauseProgram, kubeProgram} }

func programNamed(name string) (program, error) {
	for _, p := range allPrograms() {
		if p.name == name {
			return p, nil
		}
	}
	return program{}, fmt.Errorf("no program %q: build knows nats-server, pause and kube", name)
}
