package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func never(context.Context) error { return errors.New("not yet") }

func testSupervisor(t *testing.T, script string, ready probe) *supervisor {
	t.Helper()
	s, err := newSupervisor(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.add(command{name: "app", path: "/bin/sh", args: []string{"-c", script}}, ready)
	t.Cleanup(func() {
		if err := s.stopAll(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func state(s *supervisor) string { return s.report().Programs[0].State }

func TestAProgramIsKilledAndStartedAgain(t *testing.T) {
	s := testSupervisor(t, "exec sleep 1000", launched)
	for range 2 {
		if err := s.start(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
		if got := state(s); got != "running" {
			t.Fatalf("started, it is %s", got)
		}
		if err := s.stop("app", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := state(s); got != "stopped" {
			t.Fatalf("killed, it is %s", got)
		}
	}
}

func TestAProgramThatEndsByItselfFailsItsStartWithItsLastWords(t *testing.T) {
	s := testSupervisor(t, "echo no space left; exit 3", never)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := s.start(ctx, "app")
	if err == nil || !strings.Contains(err.Error(), "app ended: exit status 3\nno space left") {
		t.Errorf("got %v", err)
	}
	if got := state(s); got != "ended" {
		t.Errorf("it is %s", got)
	}
}

func TestAStartThatTakesTooLongSaysWhatItWaitsFor(t *testing.T) {
	s := testSupervisor(t, "exec sleep 1000", never)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := s.start(ctx, "app")
	if err == nil || !strings.Contains(err.Error(), "wait for app") || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("got %v", err)
	}
}

func TestAnUnknownProgramIsNamedWithTheKnownOnes(t *testing.T) {
	s := testSupervisor(t, "", launched)
	if err := s.launch("other"); err == nil || !strings.Contains(err.Error(), `"other"`) || !strings.Contains(err.Error(), "app") {
		t.Errorf("got %v", err)
	}
}

func TestCommandsReachTheSupervisorAtAPathLongerThanASockets(t *testing.T) {
	c := cluster{name: "test", dir: filepath.Join(t.TempDir(), strings.Repeat("long", 40))}
	unlock, err := c.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	s := testSupervisor(t, "exec sleep 1000", launched)
	if err := s.serveControl(c.controlSocket()); err != nil {
		t.Fatal(err)
	}
	if err := c.control("app", actionStart); err != nil {
		t.Fatal(err)
	}
	r, err := c.report()
	if err != nil {
		t.Fatal(err)
	}
	if r.Ready || len(r.Programs) != 1 || r.Programs[0].State != "running" {
		t.Errorf("got %+v", r)
	}
	if err := c.control("app", "polish"); err == nil || !strings.Contains(err.Error(), "polish") {
		t.Errorf("an unknown action got %v", err)
	}
}
