package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// facts are what a script or a test wants to know of a cluster.
type facts struct {
	Name           string `json:"name"`
	Size           size   `json:"size"`
	RunDir         string `json:"runDir"`
	Kubeconfig     string `json:"kubeconfig"`
	APIServer      string `json:"apiServer"`
	NodeKubeconfig string `json:"nodeKubeconfig,omitempty"` // for commands that `exec` runs
	NATSURL        string `json:"natsUrl,omitempty"`        // from the host
	NATSMonitorURL string `json:"natsMonitorUrl,omitempty"` // from the host
	NATSPodURL     string `json:"natsPodUrl,omitempty"`     // from pods and from `exec`
	NATSStoreDir   string `json:"natsStoreDir,omitempty"`
}

func factsOf(c cluster, s settings) facts {
	f := facts{
		Name: c.name, Size: s.Size, RunDir: c.dir, Kubeconfig: c.kubeconfigFile(),
		APIServer: fmt.Sprintf("https://%s:%d", loopback, s.Ports.API),
	}
	if s.Size == fullNode {
		f.NodeKubeconfig = c.nodeKubeconfigFile()
	}
	if s.NATS {
		f.NATSURL = fmt.Sprintf("nats://%s:%d", loopback, s.Ports.NATS)
		f.NATSMonitorURL = fmt.Sprintf("http://%s:%d", loopback, s.Ports.NATSMonitor)
		f.NATSPodURL = fmt.Sprintf("nats://%s:%d", nodeAddress, natsPort)
		f.NATSStoreDir = c.natsStore()
	}
	return f
}

// shell writes lines for `eval`.
func (f facts) shell(out io.Writer) {
	for _, line := range []struct{ name, value string }{
		{"LOOKBACK_CLUSTER", f.Name},
		{"LOOKBACK_RUN_DIR", f.RunDir},
		{"KUBECONFIG", f.Kubeconfig},
		{"NODE_KUBECONFIG", f.NodeKubeconfig},
		{"NATS_URL", f.NATSURL},
		{"NATS_MONITOR_URL", f.NATSMonitorURL},
		{"NATS_POD_URL", f.NATSPodURL},
		{"NATS_STORE_DIR", f.NATSStoreDir},
	} {
		if line.value != "" {
			fmt.Fprintf(out, "export %s=%s\n", line.name, quote(line.value))
		}
	}
}

// quote makes one word of the value in any POSIX shell.
func quote(value string) string { return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'" }

func (f facts) json(out io.Writer) error {
	if err := json.NewEncoder(out).Encode(f); err != nil {
		return fmt.Errorf("write the facts of cluster %s: %w", f.Name, err)
	}
	return nil
}

// showStatus writes a line a program.
func showStatus(out io.Writer, c cluster, s settings, r report, now time.Time) error {
	state := "ready"
	if !r.Ready {
		state = "not ready"
	}
	fmt.Fprintf(out, "cluster %s (%s): %s\n", c.name, s.Size, state)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROGRAM\tSTATE\tPID\tFOR\tEXIT")
	for _, p := range r.Programs {
		age := ""
		if !p.Since.IsZero() {
			age = now.Sub(p.Since).Round(time.Second).String()
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\n", p.Name, p.State, p.PID, age, p.Exit)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write the status of cluster %s: %w", c.name, err)
	}
	return nil
}
