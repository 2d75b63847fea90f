package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// size is how much of a cluster is run.
type size string

const (
	controlPlane size = "controlPlane" // etcd, API server, controller manager on loopback; any user
	fullNode     size = "node"         // all of it, in namespaces of its own; root
)

// settings is the file `cluster.json`: what a cluster was asked to be and where it is found.
type settings struct {
	Name              string       `json:"name"`
	Size              size         `json:"size"`
	NATS              bool         `json:"nats"`
	ControllerManager bool         `json:"controllerManager"`
	Token             string       `json:"token"`
	Programs          programPaths `json:"programs"`
	Ports             ports        `json:"ports"`
	// WhilePID is a process whose end takes the cluster down; 0 for none.
	WhilePID int `json:"whilePid,omitempty"`
	// Keeper holds the cluster: it ends with the keeper, and the keeper ends with it.
	Keeper processID `json:"keeper"`
	// Init is process 1 of the node's namespaces.
	Init processID `json:"init"`
}

// programPaths are the built programs a cluster runs.
type programPaths struct {
	Kube       string `json:"kube"` // folder with one link a program
	NATSServer string `json:"natsServer"`
	Pause      string `json:"pause"`
}

// ports are those on 127.0.0.1 of the host.
type ports struct {
	API         int `json:"api"`
	Etcd        int `json:"etcd,omitempty"`
	EtcdPeer    int `json:"etcdPeer,omitempty"`
	NATS        int `json:"nats,omitempty"`
	NATSMonitor int `json:"natsMonitor,omitempty"`
}

// processID names a process beyond the reuse of its number.
type processID struct {
	PID int `json:"pid"`
	// Start is in clock ticks since boot, as the kernel tells it.
	Start uint64 `json:"start"`
}

func identify(pid int) (processID, error) {
	start, err := startTime(pid)
	return processID{PID: pid, Start: start}, err
}

// alive tells whether the process runs; a zombie does not.
func (p processID) alive() bool {
	if p.PID == 0 {
		return false
	}
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}

var errZombie = errors.New("the process has ended")

func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return parseStartTime(string(stat))
}

// parseStartTime reads field 22 of /proc/PID/stat. The second field holds the program's name in
// parentheses, and the name may hold anything, so fields are counted from the last parenthesis.
func parseStartTime(stat string) (uint64, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const state, start = 0, 19
	if len(fields) <= start {
		return 0, fmt.Errorf("read process state %q: too few fields", stat)
	}
	if fields[state] == "Z" || fields[state] == "X" {
		return 0, errZombie
	}
	return strconv.ParseUint(fields[start], 10, 64)
}

func (c cluster) settingsFile() string { return c.path("cluster.json") }

// settings reads the file; found is false when there is none.
func (c cluster) settings() (s settings, found bool, err error) {
	content, err := os.ReadFile(c.settingsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return settings{}, false, nil
	}
	if err != nil {
		return settings{}, false, fmt.Errorf("read the cluster's settings: %w", err)
	}
	if err := json.Unmarshal(content, &s); err != nil {
		return settings{}, false, fmt.Errorf("read %s: %w", c.settingsFile(), err)
	}
	return s, true, nil
}

func (c cluster) save(s settings) error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the cluster's settings: %w", err)
	}
	return writeFile(c.settingsFile(), append(content, '\n'))
}

// writeFile replaces a file as a whole, readable by its owner only.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder of %s: %w", path, err)
	}
	next := path + ".next"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}
