package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

var plainCommands = map[string]func(context.Context, workspace, []string) error{
	"build":             buildCommand,
	"make-certificates": makeCertificatesCommand,
	"make-image":        makeImageCommand,
}

var clusterCommands = map[string]func(context.Context, workspace, cluster, []string) error{
	"up":         upCommand,
	"down":       downCommand,
	"status":     statusCommand,
	"env":        envCommand,
	"kubeconfig": kubeconfigCommand,
	"kubectl":    kubectlCommand,
	"exec":       execCommand,
	"load-image": loadImageCommand,
	"nats":       programCommand("nats-server"),
	"apiserver":  programCommand("kube-apiserver"),
}

// takeName takes `--name NAME` off the front. All that follows belongs to the command, so that
// kubectl's and other programs' flags need no care.
func takeName(args []string, fallback string) (name string, rest []string) {
	if len(args) >= 2 && args[0] == "--name" {
		return args[1], args[2:]
	}
	if len(args) >= 1 {
		if name, ok := strings.CutPrefix(args[0], "--name="); ok {
			return name, args[1:]
		}
	}
	if fallback == "" {
		fallback = defaultCluster
	}
	return fallback, args
}

// parse reads a command's flags and says what is wrong in one line.
func parse(flags *flag.FlagSet, args []string, positional int) error {
	flags.SetOutput(os.Stderr)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if positional >= 0 && flags.NArg() != positional {
		return fmt.Errorf("%s: got %d arguments %q, takes %d", flags.Name(), flags.NArg(), flags.Args(), positional)
	}
	return nil
}

func newFlags(name string) *flag.FlagSet { return flag.NewFlagSet(name, flag.ContinueOnError) }

func upCommand(ctx context.Context, w workspace, c cluster, args []string) error {
	r := request{size: fullNode}
	flags := newFlags("up")
	small := flags.Bool("control-plane", false, "etcd, API server and controller manager only; needs no root")
	asJSON := flags.Bool("json", false, "print where the cluster is found, as JSON")
	flags.BoolVar(&r.nats, "nats", false, "run a NATS server with JetStream on the node")
	flags.BoolVar(&r.controllerManager, "controller-manager", true, "run the controller manager")
	flags.IntVar(&r.whilePID, "while", 0, "take the cluster down when the process of this `PID` ends")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	if *small {
		r.size = controlPlane
	}
	if *small && r.nats {
		return errors.New("up: --nats needs the full node; beside a control plane start nats-server yourself")
	}
	if !*small && !r.controllerManager {
		return errors.New("up: only a cluster with --control-plane can do without the controller manager")
	}
	if err := up(ctx, w, c, r, os.Stderr); err != nil {
		return err
	}
	s, err := running(c)
	if err != nil {
		return err
	}
	if *asJSON {
		return factsOf(c, s).json(os.Stdout)
	}
	fmt.Fprintf(os.Stderr, "export KUBECONFIG=%s\n", quote(c.kubeconfigFile()))
	return nil
}

// running returns the settings of a cluster that is up.
func running(c cluster) (settings, error) {
	s, found, err := c.settings()
	if err != nil {
		return s, err
	}
	if !found || !s.Keeper.alive() {
		return s, fmt.Errorf("cluster %s is not up: `localcluster up --name %s` starts it", c.name, c.name)
	}
	return s, nil
}

func downCommand(_ context.Context, _ workspace, c cluster, args []string) error {
	if err := parse(newFlags("down"), args, 0); err != nil {
		return err
	}
	return down(c, os.Stderr)
}

func statusCommand(_ context.Context, _ workspace, c cluster, args []string) error {
	flags := newFlags("status")
	asJSON := flags.Bool("json", false, "print JSON")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	s, err := running(c)
	if err != nil {
		return err
	}
	r, err := c.report()
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return showStatus(os.Stdout, c, s, r, time.Now())
}

func envCommand(_ context.Context, _ workspace, c cluster, args []string) error {
	flags := newFlags("env")
	asJSON := flags.Bool("json", false, "print JSON")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	s, err := running(c)
	if err != nil {
		return err
	}
	if *asJSON {
		return factsOf(c, s).json(os.Stdout)
	}
	factsOf(c, s).shell(os.Stdout)
	return nil
}

func kubeconfigCommand(_ context.Context, _ workspace, c cluster, args []string) error {
	if err := parse(newFlags("kubeconfig"), args, 0); err != nil {
		return err
	}
	if _, err := running(c); err != nil {
		return err
	}
	fmt.Println(c.kubeconfigFile())
	return nil
}
