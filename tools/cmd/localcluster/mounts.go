package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// kernelDefaults are settings of the whole machine that the kubelet insists on, among them that a
// kernel warning reboots it. It is shown files that say so, and the machine stays as it is.
var kernelDefaults = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// prepareMounts makes the node's view of the file system, in a mount namespace of its own. What the
// programs write outside of the run folder is held in memory and gone with the namespace.
func prepareMounts(c cluster) error {
	// Opened before anything is covered: the run folder may lie below one of the places.
	run, err := os.Open(c.dir)
	if err != nil {
		return fmt.Errorf("open the run folder: %w", err)
	}
	defer run.Close()
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := mountSys(); err != nil {
		return err
	}
	// Some paths of the kubelet and the CNI are fixed: /var/lib/cni, /var/log/containers and more.
	for _, folder := range []string{"/var/lib", "/var/log"} {
		if err := cover(folder); err != nil {
			return err
		}
	}
	for name, value := range kernelDefaults {
		if err := pretend(filepath.Join("/proc/sys", name), value); err != nil {
			return err
		}
	}
	if err := keepVisible(run, c.dir); err != nil {
		return err
	}
	return shorten(c.path("kubelet"), kubeletFolder)
}

// mountSys shows the devices of the new network namespace and, below them, the machine's cgroups
// in whichever versions it has them.
func mountSys() error {
	const aside = "/run/cgroup"
	if err := os.Mkdir(aside, 0o755); err != nil {
		return fmt.Errorf("make a place for the cgroups: %w", err)
	}
	return errors.Join(
		mount("/sys/fs/cgroup", aside, "", unix.MS_BIND|unix.MS_REC, ""),
		mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		mount(aside, "/sys/fs/cgroup", "", unix.MS_MOVE, ""),
		os.Remove(aside),
	)
}

// cover lets a folder be written to in memory only.
func cover(folder string) error {
	layers := filepath.Join("/run/lookback", folder)
	upper, work := filepath.Join(layers, "upper"), filepath.Join(layers, "work")
	for _, layer := range []string{upper, work} {
		if err := os.MkdirAll(layer, 0o755); err != nil {
			return fmt.Errorf("make a layer over %s: %w", folder, err)
		}
	}
	return mount("overlay", folder, "overlay", 0, "lowerdir="+folder+",upperdir="+upper+",workdir="+work)
}

// pretend shows a file with this content in place of a kernel setting.
func pretend(path, content string) error {
	stand := filepath.Join("/run/lookback", path)
	if err := os.MkdirAll(filepath.Dir(stand), 0o755); err != nil {
		return fmt.Errorf("make a place for %s: %w", stand, err)
	}
	if err := os.WriteFile(stand, []byte(content+"\n"), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", stand, err)
	}
	return mount(stand, path, "", unix.MS_BIND, "")
}

// keepVisible puts an open folder back at its path if a mount has covered it.
func keepVisible(folder *os.File, path string) error {
	was, err := folder.Stat()
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if now, err := os.Stat(path); err == nil && os.SameFile(was, now) {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make %s in the node: %w", path, err)
	}
	return mount(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), path, "", unix.MS_BIND|unix.MS_REC, "")
}

// shorten shows a folder at a second place. The kubelet makes sockets in its folder, and the path
// of one ends at 107 bytes.
func shorten(folder, place string) error {
	for _, made := range []string{folder, place} {
		if err := os.MkdirAll(made, 0o700); err != nil {
			return fmt.Errorf("make %s in the node: %w", made, err)
		}
	}
	return mount(folder, place, "", unix.MS_BIND, "")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s in the node: %w", source, target, err)
	}
	return nil
}
