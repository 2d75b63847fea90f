package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// endWithin is how long a keeper may take to end its cluster before it is killed.
	endWithin = 20 * time.Second
	// settleTime is how long a killed process may take to be seen as ended.
	settleTime = 200 * time.Millisecond
)

// request is what a caller of `up` wants.
type request struct {
	size              size
	nats              bool
	controllerManager bool
	whilePID          int
}

// up makes the cluster run as requested. One that does already is left as it is; what is left of
// one that has lost a part is cleared away first.
func up(ctx context.Context, w workspace, c cluster, r request, show io.Writer) error {
	if r.size == fullNode {
		if err := checkHost(); err != nil {
			return err
		}
	}
	var programs *programPaths
	for {
		unlock, err := c.lock()
		if err != nil {
			return err
		}
		s, found, err := c.settings()
		if err != nil {
			unlock()
			return err
		}
		if !found && programs == nil {
			unlock() // a build takes long, and `down` shall not wait for it
			built, err := buildFor(ctx, w, r, show)
			if err != nil {
				return err
			}
			programs = &built
			continue
		}
		if !found {
			defer unlock()
			return c.create(r, *programs, show)
		}
		if complete, why := c.staysComplete(s); !complete {
			fmt.Fprintf(show, "cluster %s: clearing away what is left of it: %s\n", c.name, why)
			err := c.tearDown(s)
			unlock()
			if err != nil {
				return err
			}
			continue // the folder that was locked is gone
		}
		defer unlock()
		if s.Size != r.size {
			return fmt.Errorf("cluster %s is up in the size %s: take it down first, or use another --name", c.name, s.Size)
		}
		fmt.Fprintf(show, "cluster %s is up already\n", c.name)
		if r.nats && !s.NATS {
			s.NATS = true
			return errors.Join(c.control("nats-server", actionStart), c.save(s))
		}
		return nil
	}
}

func buildFor(ctx context.Context, w workspace, r request, show io.Writer) (programPaths, error) {
	var paths programPaths
	kube, err := w.ensure(ctx, kubeProgram, show)
	if err != nil {
		return paths, err
	}
	paths.Kube = kube
	if r.size != fullNode {
		return paths, nil
	}
	pause, err := w.ensure(ctx, pauseProgram, show)
	if err != nil {
		return paths, err
	}
	nats, err := w.ensure(ctx, natsProgram, show)
	if err != nil {
		return paths, err
	}
	paths.Pause = filepath.Join(pause, pauseProgram.name)
	paths.NATSServer = filepath.Join(nats, natsProgram.name)
	return paths, nil
}

// staysComplete looks twice: a process that has just been killed may take a moment to end.
func (c cluster) staysComplete(s settings) (bool, string) {
	if complete, why := c.complete(s); !complete {
		return false, why
	}
	time.Sleep(settleTime)
	return c.complete(s)
}

// complete tells whether all of the cluster runs that was not stopped on purpose.
func (c cluster) complete(s settings) (bool, string) {
	if !s.Keeper.alive() {
		return false, "its keeper has ended"
	}
	r, err := c.report()
	if err != nil {
		return false, err.Error()
	}
	for _, p := range r.Programs {
		if p.State == "ended" {
			return false, p.Name + " has ended"
		}
	}
	return r.Ready, "it was never complete"
}

func (c cluster) create(r request, programs programPaths, show io.Writer) error {
	s := settings{
		Name: c.name, Size: r.size, NATS: r.nats, ControllerManager: r.controllerManager, WhilePID: r.whilePID,
		Token: rand.Text(), Programs: programs,
	}
	if err := c.writeCertificates(time.Now()); err != nil {
		return err
	}
	if err := os.MkdirAll(c.path("logs"), 0o700); err != nil {
		return fmt.Errorf("make the folder for logs: %w", err)
	}
	if s.Size == fullNode {
		pause := imageSpec{
			ref: pauseImage, entrypoint: []string{"/pause"}, user: "65532:65532",
			files: []imageFile{{source: programs.Pause, destination: "/pause"}},
		}
		if _, err := writeImageFile(c.path("pause.tar"), pause); err != nil {
			return err
		}
	}
	if err := c.save(s); err != nil {
		return err
	}
	progress, keeper, err := c.startKeeper()
	if err != nil {
		return err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	followed := make(chan error, 1)
	go func() { followed <- followProgress(progress, show) }()
	select {
	case err = <-followed:
	case <-interrupted:
		err = errors.New("interrupted")
	}
	if err == nil {
		return nil
	}
	// Killed, the keeper cannot remove the logs that say what went wrong.
	if killed := keeper.Process.Kill(); killed != nil && !errors.Is(killed, os.ErrProcessDone) {
		err = errors.Join(err, fmt.Errorf("kill the keeper: %w", killed))
	}
	_ = keeper.Wait() // says that it was killed
	if s, _, read := c.settings(); read == nil {
		err = errors.Join(err, c.end(s))
	}
	return fmt.Errorf("start cluster %s: %w (logs: %s)", c.name, err, c.path("logs"))
}

// down ends the cluster and leaves nothing of it.
func down(c cluster, show io.Writer) error {
	if _, err := os.Stat(c.dir); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(show, "cluster %s is not up\n", c.name)
		return nil
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, found, err := c.settings()
	if err != nil {
		return err
	}
	if !found {
		fmt.Fprintf(show, "cluster %s is not up\n", c.name)
		return os.RemoveAll(c.dir)
	}
	if s.Size == fullNode && os.Geteuid() != 0 {
		return fmt.Errorf("cluster %s is a full node: run `down` as root", c.name)
	}
	if err := c.tearDown(s); err != nil {
		return err
	}
	fmt.Fprintf(show, "cluster %s is down\n", c.name)
	return nil
}

func (c cluster) tearDown(s settings) error {
	if err := c.end(s); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove the run folder: %w", err)
	}
	return nil
}

// end ends every process and removes the cgroups, also after a keeper that could not.
func (c cluster) end(s settings) error {
	if err := endProcess(s.Keeper, syscall.SIGTERM); err != nil {
		return err
	}
	if err := endProcess(s.Init, syscall.SIGKILL); err != nil {
		return err
	}
	if s.Size == fullNode {
		return removeCgroups(c.cgroup())
	}
	return nil
}

func endProcess(p processID, signal syscall.Signal) error {
	deadline := time.Now().Add(endWithin)
	for p.alive() {
		if time.Now().After(deadline) {
			if signal == syscall.SIGKILL {
				return fmt.Errorf("process %d does not end", p.PID)
			}
			return endProcess(p, syscall.SIGKILL)
		}
		if err := syscall.Kill(p.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", p.PID, err)
		}
		time.Sleep(probeEvery)
	}
	return nil
}
