package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	cgroupFolder = "/sys/fs/cgroup"
	cgroupsEmpty = 60 * time.Second // how long the kernel may take to let go of ended processes
)

// podControllers are those that the kubelet uses where the machine has them.
var podControllers = []string{"cpu", "cpuset", "memory", "pids", "hugetlb", "io"}

// cgroupRoots are the mounted hierarchies: several of version 1, one of version 2, or both.
func cgroupRoots() ([]string, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	defer mounts.Close()
	roots, err := parseCgroupRoots(mounts)
	if err == nil && len(roots) == 0 {
		err = fmt.Errorf("no cgroups are mounted below %s", cgroupFolder)
	}
	return roots, err
}

// parseCgroupRoots reads mountinfo: the mount point is the fifth field, the type the first one
// after a lone dash.
func parseCgroupRoots(mountinfo io.Reader) ([]string, error) {
	var roots []string
	scanner := bufio.NewScanner(mountinfo)
	for scanner.Scan() {
		before, after, ok := strings.Cut(scanner.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		kind, _, _ := strings.Cut(after, " ")
		inside := fields[4] == cgroupFolder || strings.HasPrefix(fields[4], cgroupFolder+"/")
		if (kind == "cgroup" || kind == "cgroup2") && inside && !slices.Contains(roots, fields[4]) {
			roots = append(roots, fields[4])
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	return roots, nil
}

// makeCgroups makes the parent of the pods' cgroups in every hierarchy: the kubelet wants it there.
func makeCgroups(name string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if root == cgroupFolder {
			if err := passControllers(root); err != nil {
				return err
			}
		}
		folder := filepath.Join(root, name)
		if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup %s: %w", folder, err)
		}
		// A new cpuset of version 1 allows nothing until it is told what.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inherit(root, folder, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// passControllers lets the children of a version 2 hierarchy that is alone have the controllers the
// kubelet insists on.
func passControllers(root string) error {
	has, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read the controllers of cgroup %s: %w", root, err)
	}
	for _, controller := range strings.Fields(string(has)) {
		if !slices.Contains(podControllers, controller) {
			continue
		}
		file := filepath.Join(root, "cgroup.subtree_control")
		if err := os.WriteFile(file, []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("pass controller %s on from cgroup %s: %w", controller, root, err)
		}
	}
	return nil
}

func inherit(parent, child, file string) error {
	if _, err := os.Stat(filepath.Join(child, "cgroup.controllers")); err == nil {
		return nil // version 2 inherits by itself
	}
	value, err := os.ReadFile(filepath.Join(parent, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another controller
	}
	if err != nil {
		return fmt.Errorf("read %s of cgroup %s: %w", file, parent, err)
	}
	if err := os.WriteFile(filepath.Join(child, file), value, 0o644); err != nil {
		return fmt.Errorf("write %s of cgroup %s: %w", file, child, err)
	}
	return nil
}

// removeCgroups removes the parent and all below it. The processes in there have been killed, but
// the kernel may need a moment to take them out.
func removeCgroups(name string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(cgroupsEmpty)
	for _, root := range roots {
		for {
			err := removeCgroup(filepath.Join(root, name))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return err
			}
			time.Sleep(probeEvery)
		}
	}
	return nil
}

// removeCgroup removes folders from the innermost out; the files in them are not files to remove.
func removeCgroup(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list cgroup %s: %w", folder, err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(folder, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup %s: %w", folder, err)
	}
	return nil
}
