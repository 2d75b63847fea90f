package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// hostTool is a program of the machine that the full node uses, and the Debian package it is in.
type hostTool struct {
	name string
	apt  string
}

var (
	hostTools = []hostTool{
		{"containerd", "containerd"},
		{"containerd-shim-runc-v2", "containerd"},
		{"ctr", "containerd"},
		{"runc", "runc"},
		{"nft", "nftables"},
		{"ip", "iproute2"},
		{"mount", "mount"},
	}
	cniPlugins = []string{"bridge", "host-local", "loopback"}
	cniFolders = []string{"/usr/lib/cni", "/opt/cni/bin"}
)

// systemPath is the search path for programs; that of a plain user often lacks the sbin folders.
func systemPath() string {
	return strings.Join([]string{os.Getenv("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"}, ":")
}

// cniFolder is the first folder that holds every plugin the node uses.
func cniFolder() (string, bool) {
	for _, folder := range cniFolders {
		missing := slices.ContainsFunc(cniPlugins, func(plugin string) bool {
			_, err := os.Stat(filepath.Join(folder, plugin))
			return err != nil
		})
		if !missing {
			return folder, true
		}
	}
	return "", false
}

// checkHost tells in one message all that keeps this machine from running a full node.
func checkHost() error {
	if os.Geteuid() != 0 {
		return errors.New("a full node needs root (namespaces, cgroups, mounts): " +
			"run as root, or ask for the control plane alone with --control-plane")
	}
	if err := os.Setenv("PATH", systemPath()); err != nil {
		return fmt.Errorf("set the search path: %w", err)
	}
	return missingTools(func(name string) bool {
		_, err := exec.LookPath(name)
		return err == nil
	}, func() bool {
		_, ok := cniFolder()
		return ok
	})
}

func missingTools(hasTool func(name string) bool, hasPlugins func() bool) error {
	var names, packages []string
	for _, tool := range hostTools {
		if !hasTool(tool.name) {
			names, packages = append(names, tool.name), append(packages, tool.apt)
		}
	}
	if !hasPlugins() {
		names = append(names, "CNI plugins "+strings.Join(cniPlugins, ", ")+" in "+strings.Join(cniFolders, " or "))
		packages = append(packages, "containernetworking-plugins")
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(packages)
	return fmt.Errorf("a full node lacks %s: apt-get install --no-install-recommends %s",
		strings.Join(names, "; "), strings.Join(slices.Compact(packages), " "))
}
