package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// runNode is the node's supervisor, in the namespaces: it prepares them, starts everything and
// stays.
func runNode(c cluster) error {
	progress := inheritedProgress()
	err := func() error {
		s, found, err := c.settings()
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("no settings in %s", c.dir)
		}
		if err := os.Setenv("PATH", systemPath()); err != nil {
			return fmt.Errorf("set the search path: %w", err)
		}
		if err := prepareMounts(c); err != nil {
			return err
		}
		if err := prepareNetwork(); err != nil {
			return err
		}
		sup, err := newSupervisor(c.path("logs"))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(context.Background(), nodeWithin, fmt.Errorf("not within %s", nodeWithin))
		defer cancel()
		if err := sup.startNode(ctx, layoutOf(c, s), progress); err != nil {
			return err
		}
		sup.setReady()
		return sup.serveControl(c.controlSocket())
	}()
	progress.end(err)
	if err != nil {
		return err
	}
	select {} // the end of process 1 is the end of this one
}

// prepareNetwork makes the bridge before the kubelet asks for the node's address.
func prepareNetwork() error {
	for _, arguments := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", bridge, "type", "bridge"},
		{"address", "add", nodePrefix, "dev", bridge},
		{"link", "set", bridge, "up"},
	} {
		if err := runTool("ip", arguments...); err != nil {
			return err
		}
	}
	const forwarding = "/proc/sys/net/ipv4/ip_forward"
	if err := os.WriteFile(forwarding, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("let the node forward packets: %w", err)
	}
	return nil
}

func runTool(name string, arguments ...string) error {
	out, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s %v: %w\n%s", name, arguments, err, out)
	}
	return nil
}

// startNode starts the container runtime beside the control plane, then what needs both.
func (s *supervisor) startNode(ctx context.Context, l layout, progress progressWriter) error {
	plugins, ok := cniFolder()
	if !ok {
		return errors.New("the CNI plugins are gone")
	}
	snapshotter, err := snapshotterFor(l.dir)
	if err != nil {
		return err
	}
	if err := l.writeNodeConfig(plugins, snapshotter); err != nil {
		return err
	}
	s.add(containerdCommand(l), dialable("unix", containerdSocket))
	if err := s.launch("containerd"); err != nil {
		return err
	}
	s.add(natsCommand(l), natsHealthy)
	if l.NATS {
		if err := s.launch("nats-server"); err != nil {
			return err
		}
	}
	if err := s.startControlPlane(ctx, l, progress); err != nil {
		return err
	}
	if err := s.await(ctx, "containerd"); err != nil {
		return err
	}
	if err := importImage(snapshotter, l.path("pause.tar")); err != nil {
		return err
	}
	api, err := newAPIClient(l)
	if err != nil {
		return err
	}
	class, err := storageClassObject()
	if err != nil {
		return err
	}
	if err := api.create(ctx, "/apis/storage.k8s.io/v1/storageclasses", class); err != nil {
		return fmt.Errorf("create StorageClass %s: %w", storageClass, err)
	}
	needed := []string{"containerd", "etcd", "kube-apiserver", "kube-controller-manager"}
	for _, c := range []command{kubeletCommand(l), schedulerCommand(l), proxyCommand(l), provisionerCommand(l)} {
		s.add(c, launched)
		if err := s.launch(c.name); err != nil {
			return err
		}
		needed = append(needed, c.name)
	}
	if err := s.waitFor(ctx, "the node", api.nodeReady, needed...); err != nil {
		return err
	}
	progress.step("node ready")
	if l.NATS {
		if err := s.await(ctx, "nats-server"); err != nil {
			return err
		}
		progress.step("NATS JetStream ready")
	}
	return nil
}

// importImage puts an image tarball where the kubelet finds it. It runs in the node.
func importImage(snapshotter, tarball string) error {
	command := importCommand(snapshotter, tarball)
	return runTool(command[0], command[1:]...)
}

func importCommand(snapshotter, tarball string) []string {
	return []string{
		"ctr", "--address", containerdSocket, "--namespace", "k8s.io",
		"images", "import", "--snapshotter", snapshotter, tarball,
	}
}

// snapshotterFor is overlayfs wherever it can be: its layers cannot lie on another overlay, as the
// file system of a container often is one.
func snapshotterFor(dir string) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return "", fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return "native", nil
	}
	return "overlayfs", nil
}

func dialable(network, address string) probe {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// natsHealthy asks NATS whether JetStream has recovered its streams.
func natsHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	url := fmt.Sprintf("http://%s:%d/healthz", nodeAddress, natsMonitorPort)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("make the request to %s: %w", url, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("NATS says %s at %s", response.Status, url)
	}
	return nil
}
