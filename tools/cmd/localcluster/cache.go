package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// toolchain is what of the Go installation decides the bytes of a program.
type toolchain struct {
	version string
	goos    string
	goarch  string
}

func (w workspace) toolchain(ctx context.Context) (toolchain, error) {
	command := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOOS", "GOARCH")
	command.Dir = w.module()
	out, err := command.Output()
	if err != nil {
		return toolchain{}, fmt.Errorf("ask `go env` for the toolchain (install Go %s or newer): %w", minimalGo, err)
	}
	fields := strings.Fields(string(out))
	if len(fields) != 3 {
		return toolchain{}, fmt.Errorf("read the toolchain from `go env`: %q", out)
	}
	return toolchain{version: fields[0], goos: fields[1], goarch: fields[2]}, nil
}

// cacheKey hashes all that decides what the program becomes. The module's root is a parameter for
// the tests' sake.
func cacheKey(module string, p program, t toolchain) (string, error) {
	sum := sha256.New()
	field := func(values ...string) {
		for _, value := range values {
			fmt.Fprintf(sum, "%d:%s", len(value), value)
		}
	}
	field(t.version, t.goos, t.goarch, p.target, p.ldflags)
	field(p.links...)
	for _, source := range p.sources {
		root := filepath.Join(module, source)
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(module, path)
			field(name, string(content))
			return err
		})
		if err != nil {
			return "", fmt.Errorf("hash the sources of %s: %w", p.name, err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// ensure returns the folder that holds the built program, building it when the cache has none for
// the present inputs, and links it into the checkout's `.bin`.
func (w workspace) ensure(ctx context.Context, p program, progress io.Writer) (folder string, err error) {
	t, err := w.toolchain(ctx)
	if err != nil {
		return "", err
	}
	key, err := cacheKey(w.module(), p, t)
	if err != nil {
		return "", err
	}
	folder = filepath.Join(w.cache, p.name+"-"+key)
	if !isBuilt(folder, p) {
		if err := w.buildInto(ctx, p, folder, progress); err != nil {
			return "", err
		}
	}
	return folder, w.link(p, folder)
}

func isBuilt(folder string, p program) bool {
	_, err := os.Stat(filepath.Join(folder, p.name))
	return err == nil
}

// buildInto builds beside the folder and renames, so that the cache never holds half a program.
// Of several callers with one program to build, one builds and the others wait.
func (w workspace) buildInto(ctx context.Context, p program, folder string, progress io.Writer) error {
	if err := os.MkdirAll(w.cache, 0o755); err != nil {
		return fmt.Errorf("make the cache folder: %w", err)
	}
	unlock, err := lockBuild(folder+".lock", func() {
		fmt.Fprintf(progress, "%s: waiting for another build of it\n", p.name)
	})
	if err != nil {
		return err
	}
	defer unlock()
	if isBuilt(folder, p) {
		return nil
	}
	temporary, err := os.MkdirTemp(w.cache, p.name+".building-*")
	if err != nil {
		return fmt.Errorf("make a folder to build %s in: %w", p.name, err)
	}
	defer os.RemoveAll(temporary) // gone already unless an error came first
	if err := compile(ctx, w.module(), p, temporary, progress); err != nil {
		return err
	}
	for _, link := range p.links {
		if err := os.Symlink(p.name, filepath.Join(temporary, link)); err != nil {
			return fmt.Errorf("link %s to %s: %w", link, p.name, err)
		}
	}
	if err := os.Chmod(temporary, 0o755); err != nil {
		return fmt.Errorf("open the folder of %s to readers: %w", p.name, err)
	}
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("remove an incomplete build of %s: %w", p.name, err)
	}
	if err := os.Rename(temporary, folder); err != nil {
		return fmt.Errorf("put %s into the cache: %w", p.name, err)
	}
	return nil
}

func lockBuild(path string, onWait func()) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the build lock: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		onWait()
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

// link points the checkout's `.bin` at the program; a link that is right already is not touched,
// since other processes may be starting through it.
func (w workspace) link(p program, folder string) error {
	if err := os.MkdirAll(w.bin, 0o755); err != nil {
		return fmt.Errorf("make the folder for links: %w", err)
	}
	for _, name := range append([]string{p.name}, p.links...) {
		target, place := filepath.Join(folder, name), filepath.Join(w.bin, name)
		if now, err := os.Readlink(place); err == nil && now == target {
			continue
		}
		next := fmt.Sprintf("%s.next-%d", place, os.Getpid())
		if err := os.Symlink(target, next); err != nil {
			return fmt.Errorf("link %s: %w", place, err)
		}
		if err := os.Rename(next, place); err != nil {
			return fmt.Errorf("replace link %s: %w", place, err)
		}
	}
	return nil
}
