// A Kubernetes cluster and a NATS server on one machine, for tests and the demo.
//
// # Layout
//
//	main, commands, inside, make  the command line
//	workspace, settings, facts    folders and files: where a cluster is found and what it was asked to be
//	programs, cache, build        programs built once a user, by the hash of their inputs
//	up, keeper, hold              the life of a cluster: one keeper process holds it
//	supervisor, control, progress its programs are started, watched, stopped; how commands talk to it
//	controlplane, node            what is started in which order
//	namespace, mounts, cgroups,   the full node has a network, mounts and processes of its own, and
//	forward, thread, host         doors on 127.0.0.1
//	layout, components, config,   addresses, arguments, configuration files, certificates, ports and
//	certs, ports, api             what is asked of the API server
//	image                         images without Docker
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

const usage = `localcluster: a Kubernetes cluster and a NATS server on this machine

  build [PROGRAM...]         build nats-server, pause and kube (or those named) into the cache
  up [--control-plane] [--nats] [--json] [--while PID] [--controller-manager=false]
                             start the cluster; with --control-plane only etcd, the API server
                             and the controller manager, which needs no root
  down                       end the cluster and leave nothing of it
  status [--json]            show its programs
  env [--json]               print where it is found, as shell or JSON
  kubeconfig                 print the path of its kubeconfig
  kubectl ARGUMENT...        run kubectl on it
  exec -- COMMAND...         run a command on the node: its network, mounts and processes
  nats start|stop|kill|restart
  apiserver start|stop|kill|restart
  load-image FILE.tar        give an image to the node
  make-certificates --out DIR
                             write a new CA, and a certificate of it for 127.0.0.1 with its key
  make-image --ref REF --out FILE [--user UID:GID] --entrypoint WORD... SOURCE:DESTINATION...
                             write an image as an OCI tarball

Every command but build and make-... takes --name NAME as its first argument
(default: $LOOKBACK_CLUSTER, else ` + defaultCluster + `); names tell clusters apart that run side by side.
`

// exitCode ends the program with the code of a program it ran for the caller.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	err := run(context.Background(), os.Args[1:])
	var code exitCode
	switch {
	case errors.As(err, &code):
		os.Exit(int(code))
	case err != nil:
		fmt.Fprintf(os.Stderr, "localcluster: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		_, err := os.Stdout.WriteString(usage)
		return err
	}
	name, rest := args[0], args[1:]
	if name == roleNodeExec && len(rest) > 0 {
		return becomeCommand(rest)
	}
	if role, ok := roles[name]; ok && len(rest) == 1 {
		return role(cluster{name: filepath.Base(rest[0]), dir: rest[0]})
	}
	w, err := findWorkspace()
	if err != nil {
		return err
	}
	if command, ok := plainCommands[name]; ok {
		return command(ctx, w, rest)
	}
	command, ok := clusterCommands[name]
	if !ok {
		return fmt.Errorf("no command %q: `localcluster help` lists them", name)
	}
	chosen, rest := takeName(rest, os.Getenv("LOOKBACK_CLUSTER"))
	c, err := w.cluster(chosen)
	if err != nil {
		return err
	}
	return command(ctx, w, c, rest)
}

// roles are the parts of a cluster that this program runs as.
var roles = map[string]func(cluster) error{
	roleKeeper:   keep,
	roleInit:     runInit,
	roleNodeMain: runNode,
}
