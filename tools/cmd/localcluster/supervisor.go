package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	probeEvery = 50 * time.Millisecond
	stopWithin = 20 * time.Second
	logTail    = 15 // lines shown of a program that ended
)

// probe is nil when what it looks at is ready, and else says why not.
type probe func(ctx context.Context) error

// launched is the probe of a program with no better sign of being ready.
func launched(context.Context) error { return nil }

// supervisor runs the programs of one cluster. It restarts nothing: a program that ends is seen in
// `status`, may be started again by hand, and a test that kills one decides when it comes back.
type supervisor struct {
	logs    string
	spawner thread // children die with this process, by whatever it ends

	acting sync.Mutex // one start or stop at a time from outside

	mu    sync.Mutex
	ready bool
	known map[string]*task
	order []string
}

// task is one program and its present or last process.
type task struct {
	command
	probe   probe
	process *os.Process
	started time.Time
	stopped time.Time
	exit    string        // how the last process ended
	done    chan struct{} // closed when it has; nil before the first start
}

func newSupervisor(logs string) (*supervisor, error) {
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for logs: %w", err)
	}
	spawner, err := newThread(func() error { return nil })
	return &supervisor{logs: logs, spawner: spawner, known: map[string]*task{}}, err
}

// add makes a program known; ready tells when a start of it is complete.
func (s *supervisor) add(c command, ready probe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[c.name] = &task{command: c, probe: ready}
	s.order = append(s.order, c.name)
}

func (s *supervisor) task(name string) (*task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.known[name]
	if !ok {
		return nil, fmt.Errorf("no program %q in this cluster: it has %s", name, strings.Join(s.order, ", "))
	}
	return t, nil
}

// launch starts the program and does not wait until it is ready.
func (s *supervisor) launch(name string) error {
	t, err := s.task(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.running() {
		return nil
	}
	logFile, err := os.OpenFile(s.logFile(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer logFile.Close()
	process := exec.Command(t.path, t.args...)
	process.Stdout, process.Stderr = logFile, logFile
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	s.spawner.run(func() { err = process.Start() })
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	t.process, t.started, t.exit = process.Process, time.Now(), ""
	done := make(chan struct{})
	t.done = done
	go func() {
		err := process.Wait()
		s.mu.Lock()
		t.stopped = time.Now()
		t.exit = "exit status 0"
		if err != nil {
			t.exit = err.Error()
		}
		s.mu.Unlock()
		close(done)
	}()
	return nil
}

// running is asked with the supervisor's lock held.
func (t *task) running() bool { return t.done != nil && t.exit == "" }

// await waits until the program is ready; it fails at once when the program ends.
func (s *supervisor) await(ctx context.Context, name string) error {
	t, err := s.task(name)
	if err != nil {
		return err
	}
	return s.waitFor(ctx, name, t.probe, name)
}

// waitFor waits for a state of the cluster; it fails at once when a program that is needed for it
// has ended by itself.
func (s *supervisor) waitFor(ctx context.Context, what string, ready probe, needed ...string) error {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if ended := s.ended(needed); ended != nil {
			return ended
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last seen: %w", what, context.Cause(ctx), err)
		}
	}
}

func (s *supervisor) ended(names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if t := s.known[name]; t.exit != "" && t.process != nil {
			return fmt.Errorf("%s ended: %s\n%s", name, t.exit, lastLines(s.logFile(name), logTail))
		}
	}
	return nil
}

// start starts a program and waits until it is ready.
func (s *supervisor) start(ctx context.Context, name string) error {
	if err := s.launch(name); err != nil {
		return err
	}
	return s.await(ctx, name)
}

// stop ends a program by the signal and waits for its end; the rest of it by SIGKILL.
func (s *supervisor) stop(name string, signal syscall.Signal) error {
	t, err := s.task(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	running, process, done := t.running(), t.process, t.done
	t.process = nil // its end is wanted
	s.mu.Unlock()
	if !running {
		return nil
	}
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	select {
	case <-done:
		return nil
	case <-time.After(stopWithin):
	}
	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	<-done
	return nil
}

// stopAll kills everything: what the programs would save ends with the cluster.
func (s *supervisor) stopAll() error {
	var failed []error
	for _, name := range s.order {
		failed = append(failed, s.stop(name, syscall.SIGKILL))
	}
	return errors.Join(failed...)
}

func (s *supervisor) setReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = true
}

// report is what `status` shows.
type report struct {
	Ready    bool            `json:"ready"`
	Programs []programReport `json:"programs"`
}

type programReport struct {
	Name  string `json:"name"`
	State string `json:"state"` // running, ended, stopped, new
	// PID counts in the namespace of the cluster.
	PID   int       `json:"pid,omitempty"`
	Since time.Time `json:"since,omitzero"`
	Exit  string    `json:"exit,omitempty"`
}

func (s *supervisor) report() report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := report{Ready: s.ready}
	for _, name := range s.order {
		t := s.known[name]
		p := programReport{Name: name, Exit: t.exit}
		switch {
		case t.done == nil:
			p.State = "new"
		case t.running():
			p.State, p.Since = "running", t.started
			if t.process != nil {
				p.PID = t.process.Pid
			}
		case t.process == nil:
			p.State, p.Since = "stopped", t.stopped
		default:
			p.State, p.Since = "ended", t.stopped
		}
		r.Programs = append(r.Programs, p)
	}
	return r
}

func (s *supervisor) logFile(name string) string { return filepath.Join(s.logs, name+".log") }

// lastLines is for messages: a file that cannot be read is an empty one.
func lastLines(file string, count int) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
