package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	moduleLine     = "module lookback.dev/tools"
	defaultCluster = "lookback"
)

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// workspace is where a checkout keeps what it builds and what it runs.
type workspace struct {
	repo  string // the checkout
	bin   string // links to the built programs
	cache string // built programs by the hash of their inputs, shared by all checkouts of a user
	runs  string // one folder a cluster
}

// findWorkspace looks for the checkout around this executable, then around the working directory.
func findWorkspace() (workspace, error) {
	executable, err := os.Executable()
	if err != nil {
		return workspace{}, fmt.Errorf("find this executable: %w", err)
	}
	workingDir, err := os.Getwd()
	if err != nil {
		return workspace{}, fmt.Errorf("find the working directory: %w", err)
	}
	repo, ok := repoAround(filepath.Dir(executable))
	if !ok {
		repo, ok = repoAround(workingDir)
	}
	if !ok {
		return workspace{}, fmt.Errorf("no checkout of Lookback around %s nor %s: run this inside one", executable, workingDir)
	}
	cache := os.Getenv("LOOKBACK_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return workspace{}, fmt.Errorf("find a folder for built programs (set LOOKBACK_CACHE): %w", err)
		}
		cache = filepath.Join(home, ".cache", "lookback")
	}
	runs := os.Getenv("LOOKBACK_RUN")
	if runs == "" {
		runs = filepath.Join(repo, ".run")
	}
	w := workspace{repo: repo, bin: filepath.Join(repo, ".bin")}
	if w.cache, err = filepath.Abs(cache); err != nil {
		return workspace{}, fmt.Errorf("make LOOKBACK_CACHE=%s absolute: %w", cache, err)
	}
	if w.runs, err = filepath.Abs(runs); err != nil {
		return workspace{}, fmt.Errorf("make LOOKBACK_RUN=%s absolute: %w", runs, err)
	}
	return w, nil
}

func repoAround(dir string) (string, bool) {
	for {
		content, err := os.ReadFile(filepath.Join(dir, "tools", "go.mod"))
		if err == nil && strings.HasPrefix(string(content), moduleLine+"\n") {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

// module is the folder of the Go module this program is part of.
func (w workspace) module() string { return filepath.Join(w.repo, "tools") }

// cluster is the folder of one cluster, and all that is named after it.
type cluster struct {
	name string
	dir  string
}

func (w workspace) cluster(name string) (cluster, error) {
	if !clusterName.MatchString(name) {
		return cluster{}, fmt.Errorf("cluster name %q: use at most 40 lower-case letters, digits and inner dashes", name)
	}
	return cluster{name: name, dir: filepath.Join(w.runs, name)}, nil
}

func (c cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.dir}, elements...)...)
}

// cgroup is the parent of the pods' cgroups. The hierarchy is shared by the whole machine, so the
// name tells apart clusters of one name in two checkouts.
func (c cluster) cgroup() string {
	sum := sha256.Sum256([]byte(c.dir))
	return "/lookback-" + c.name + "-" + hex.EncodeToString(sum[:4])
}

// lock makes the folder and keeps every other `up` and `down` of this cluster out until the
// returned function is called or this process ends. The folder itself is the lock, so nothing is
// left when `down` removes it.
func (c cluster) lock() (unlock func(), err error) {
	for {
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the run folder: %w", err)
		}
		folder, err := os.Open(c.dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a `down` was faster
		}
		if err != nil {
			return nil, fmt.Errorf("open the run folder: %w", err)
		}
		if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
			folder.Close()
			return nil, fmt.Errorf("lock %s: %w", c.dir, err)
		}
		locked, err := folder.Stat()
		if err != nil {
			folder.Close()
			return nil, fmt.Errorf("look at %s: %w", c.dir, err)
		}
		if now, err := os.Stat(c.dir); err == nil && os.SameFile(locked, now) {
			return func() { folder.Close() }, nil
		}
		folder.Close() // removed while we waited: lock the folder that stands there now
	}
}
