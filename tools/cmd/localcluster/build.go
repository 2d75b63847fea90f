package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	minimalGo     = "1.26"
	progressEvery = 10 * time.Second
	// errorLines is how much of a failed build's output is shown.
	errorLines = 30
)

// compile builds the program as a static binary into the folder.
func compile(ctx context.Context, module string, p program, folder string, progress io.Writer) error {
	report := newBuildReport(p.name, progress)
	flags := []string{"-v", "-trimpath", "-buildvcs=false", "-ldflags", p.ldflags}
	environment := append(os.Environ(), "CGO_ENABLED=0")
	var command *exec.Cmd
	if p.inModule() {
		report.expect(countPackages(ctx, module, p, environment, report))
		command = exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...),
			"-o", filepath.Join(folder, p.name), p.target)...)
	} else {
		command = exec.CommandContext(ctx, "go", append(append([]string{"install"}, flags...), p.target)...)
		environment = append(environment, "GOBIN="+folder)
	}
	command.Dir, command.Env, command.Stderr = module, environment, report
	err := command.Run()
	report.end()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.name, err, report.tail())
	}
	if !isBuilt(folder, p) {
		return fmt.Errorf("build %s: `go` has left no such file in %s", p.name, folder)
	}
	return nil
}

// countPackages is a guess for the progress lines only: 0 when it cannot be had. The first call
// fetches the modules, so its output is progress too.
func countPackages(ctx context.Context, module string, p program, environment []string, report io.Writer) int {
	command := exec.CommandContext(ctx, "go", "list", "-deps", p.target)
	command.Dir, command.Env, command.Stderr = module, environment, report
	out, err := command.Output()
	if err != nil {
		return 0 // the build says what is wrong
	}
	return bytes.Count(out, []byte("\n"))
}

// buildReport reads what `go build -v` says, one line a package, and tells from time to time.
type buildReport struct {
	name     string
	out      io.Writer
	lines    *io.PipeWriter
	started  time.Time
	read     chan struct{} // closed when all lines are
	finished chan struct{}
	told     chan struct{} // closed when the last word is

	mu         sync.Mutex
	expected   int
	compiled   int
	downloaded int
	last       []string
}

func newBuildReport(name string, out io.Writer) *buildReport {
	lines, write := io.Pipe()
	r := &buildReport{
		name: name, out: out, lines: write, started: time.Now(),
		read: make(chan struct{}), finished: make(chan struct{}), told: make(chan struct{}),
	}
	fmt.Fprintf(out, "%s: building\n", name)
	go r.readLines(lines)
	go r.tick()
	return r
}

func (r *buildReport) Write(p []byte) (int, error) { return r.lines.Write(p) }

func (r *buildReport) readLines(lines io.Reader) {
	defer close(r.read)
	scanner := bufio.NewScanner(lines)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		r.mu.Lock()
		if strings.HasPrefix(scanner.Text(), "go: downloading ") {
			r.downloaded++
		} else {
			r.compiled++
		}
		r.last = append(r.last, scanner.Text())
		r.last = r.last[max(0, len(r.last)-errorLines):]
		r.mu.Unlock()
	}
	// A line beyond the buffer ends the scanner; the build must not block on us.
	_, _ = io.Copy(io.Discard, lines)
}

func (r *buildReport) tick() {
	defer close(r.told)
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.tell("")
		case <-r.finished:
			r.tell("done, ")
			return
		}
	}
}

func (r *buildReport) tell(prefix string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%s: %s%s\n", r.name, prefix,
		buildProgress(time.Since(r.started), r.downloaded, r.compiled, r.expected))
}

// buildProgress says how far a build is. What Go finds in its own cache is not compiled, so the
// expected number is an upper bound.
func buildProgress(elapsed time.Duration, downloaded, compiled, expected int) string {
	line := fmt.Sprintf("%d s", int(elapsed.Seconds()))
	if downloaded > 0 {
		line += fmt.Sprintf(", %d modules fetched", downloaded)
	}
	if expected > 0 {
		return line + fmt.Sprintf(", %d of at most %d packages compiled", compiled, expected)
	}
	return line + fmt.Sprintf(", %d packages compiled", compiled)
}

func (r *buildReport) expect(packages int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expected = packages
}

func (r *buildReport) tail() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.last, "\n")
}

func (r *buildReport) end() {
	r.lines.Close()
	<-r.read
	close(r.finished)
	<-r.told
}
