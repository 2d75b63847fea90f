package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// The hidden subcommands by which this program starts itself as a part of a cluster.
const (
	roleKeeper   = "keeper"
	roleInit     = "node-init"
	roleNodeMain = "node-supervisor"
	roleNodeExec = "node-exec"
)

// startKeeper starts the process that holds the cluster, in a session of its own so that it
// outlives this command, and returns the end of a pipe with its progress.
func (c cluster) startKeeper() (progress *os.File, keeper *exec.Cmd, err error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find this executable: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe for progress: %w", err)
	}
	defer write.Close()
	logFile, err := os.OpenFile(c.log(roleKeeper), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the keeper's log: %w", err), read.Close())
	}
	defer logFile.Close()
	keeper = exec.Command(executable, roleKeeper, c.dir)
	keeper.Dir = c.dir
	keeper.Stdout, keeper.Stderr = logFile, logFile
	keeper.ExtraFiles = []*os.File{write} // becomes progressFD
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := keeper.Start(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the keeper: %w", err), read.Close())
	}
	return read, keeper, nil
}

// keep holds a cluster until it is told to end, until a part of it that the rest cannot do without
// ends, or until the process ends for which the cluster was made.
func keep(c cluster) error {
	progress := inheritedProgress()
	s, found, err := c.settings()
	if err == nil && !found {
		err = fmt.Errorf("no settings in %s", c.dir)
	}
	if err != nil {
		progress.end(err)
		return err
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	widowed, err := endOf(s.WhilePID)
	if err != nil {
		progress.end(err)
		return err
	}
	if s.Keeper, err = identify(os.Getpid()); err != nil {
		progress.end(err)
		return err
	}
	hold := holdControlPlane
	if s.Size == fullNode {
		hold = holdNode
	}
	ended, stop, err := hold(c, s, progress)
	if err != nil {
		progress.end(err)
		return err
	}
	select {
	case <-told:
		return errors.Join(stop(), os.RemoveAll(c.dir))
	case <-widowed:
		return errors.Join(stop(), os.RemoveAll(c.dir))
	case err := <-ended:
		// The logs stay: this was not asked for.
		return errors.Join(fmt.Errorf("the cluster ended by itself: %w", err), stop())
	}
}

// endOf returns a channel that is closed when the process ends; pid 0 never does.
func endOf(pid int) (<-chan struct{}, error) {
	ended := make(chan struct{})
	if pid == 0 {
		return ended, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	go func() {
		defer close(ended)
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return ended, nil
}
