package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var plainCommands = map[string]func(context.Context, workspace, []string) error{
	"build":      buildCommand,
	"make-image": makeImageCommand,
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

func buildCommand(ctx context.Context, w workspace, args []string) error {
	flags := newFlags("build")
	if err := parse(flags, args, -1); err != nil {
		return err
	}
	programs := allPrograms()
	if flags.NArg() > 0 {
		programs = nil
		for _, name := range flags.Args() {
			p, err := programNamed(name)
			if err != nil {
				return err
			}
			programs = append(programs, p)
		}
	}
	for _, p := range programs {
		folder, err := w.ensure(ctx, p, os.Stderr)
		if err != nil {
			return err
		}
		fmt.Println(filepath.Join(folder, p.name))
	}
	return nil
}

type words []string

func (w *words) String() string { return strings.Join(*w, " ") }

func (w *words) Set(word string) error {
	*w = append(*w, word)
	return nil
}

func makeImageCommand(_ context.Context, _ workspace, args []string) error {
	var spec imageSpec
	var entrypoint words
	var out string
	flags := newFlags("make-image")
	flags.StringVar(&spec.ref, "ref", "", "name of the image, fully qualified")
	flags.StringVar(&out, "out", "", "tarball to write")
	flags.StringVar(&spec.user, "user", "65532:65532", "user and group that the program runs as")
	flags.Var(&entrypoint, "entrypoint", "a word of the command that the image runs; give it once a word")
	if err := parse(flags, args, -1); err != nil {
		return err
	}
	if spec.ref == "" || out == "" || len(entrypoint) == 0 {
		return errors.New("make-image: --ref, --out and --entrypoint are needed")
	}
	spec.entrypoint = entrypoint
	for _, argument := range flags.Args() {
		file, err := parseImageFile(argument)
		if err != nil {
			return err
		}
		spec.files = append(spec.files, file)
	}
	digest, err := writeImageFile(out, spec)
	if err != nil {
		return err
	}
	fmt.Printf("%s@%s\n", spec.ref, digest)
	return nil
}

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
