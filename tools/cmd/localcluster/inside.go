package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// kubectlCommand becomes kubectl.
func kubectlCommand(_ context.Context, _ workspace, c cluster, args []string) error {
	s, err := running(c)
	if err != nil {
		return err
	}
	kubectl := layoutOf(c, s).kube("kubectl")
	environment := append(os.Environ(), "KUBECONFIG="+c.kubeconfigFile())
	if err := syscall.Exec(kubectl, append([]string{"kubectl"}, args...), environment); err != nil {
		return fmt.Errorf("run %s: %w", kubectl, err)
	}
	return nil
}

// runningNode returns the settings of a full node that is up.
func runningNode(c cluster, what string) (settings, error) {
	s, err := running(c)
	if err != nil {
		return s, err
	}
	if s.Size != fullNode {
		return s, fmt.Errorf("%s: cluster %s is a control plane without a node", what, c.name)
	}
	if os.Geteuid() != 0 {
		return s, fmt.Errorf("%s: run as root", what)
	}
	return s, nil
}

func execCommand(_ context.Context, _ workspace, c cluster, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("exec: which command? write it behind --")
	}
	s, err := runningNode(c, "exec")
	if err != nil {
		return err
	}
	return onNode(c, s, args)
}

// onNode runs a command on the node. It finds the cluster's own programs, kubectl its cluster and
// ctr its containers.
func onNode(c cluster, s settings, args []string) error {
	if err := os.Setenv("PATH", s.Programs.Kube+":"+systemPath()); err != nil {
		return fmt.Errorf("set the search path: %w", err)
	}
	here, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this executable: %w", err)
	}
	command := exec.Command(executable, append([]string{roleNodeExec}, args...)...)
	command.Dir = here
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "KUBECONFIG="+c.nodeKubeconfigFile(),
		"CONTAINERD_ADDRESS="+containerdSocket, "CONTAINERD_NAMESPACE=k8s.io")
	code, err := execInNode(s.Init.PID, command)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

func loadImageCommand(_ context.Context, _ workspace, c cluster, args []string) error {
	flags := newFlags("load-image")
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	s, err := runningNode(c, "load-image")
	if err != nil {
		return err
	}
	file, err := filepath.Abs(flags.Arg(0))
	if err != nil {
		return fmt.Errorf("make %s absolute: %w", flags.Arg(0), err)
	}
	snapshotter, err := snapshotterFor(c.dir)
	if err != nil {
		return err
	}
	return onNode(c, s, importCommand(snapshotter, file))
}

// programCommand starts and stops one program of a cluster.
func programCommand(program string) func(context.Context, workspace, cluster, []string) error {
	return func(_ context.Context, _ workspace, c cluster, args []string) error {
		flags := newFlags(program)
		if err := parse(flags, args, 1); err != nil {
			return err
		}
		if _, err := running(c); err != nil {
			return err
		}
		action := flags.Arg(0)
		if action != "restart" {
			return c.control(program, action)
		}
		if err := c.control(program, actionStop); err != nil {
			return err
		}
		return c.control(program, actionStart)
	}
}
