package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const dialWithin = 5 * time.Second

// startInit starts this program as process 1 of namespaces of its own. It dies with the calling
// process, and all processes of its namespace with it.
func (c cluster) startInit(spawner thread, progress *os.File, log *os.File) (*exec.Cmd, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this executable: %w", err)
	}
	command := exec.Command(executable, roleInit, c.dir)
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{progress} // becomes progressFD
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	spawner.run(func() { err = command.Start() })
	if err != nil {
		return nil, fmt.Errorf("start the node in namespaces of its own: %w", err)
	}
	return command, nil
}

// runInit is process 1: it starts the node's supervisor, collects every process that lost its
// parent, and ends with the supervisor. Collecting is alone in a process because it would steal
// the ends of children that another part of the program waits for.
func runInit(c cluster) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this executable: %w", err)
	}
	// A process 1 that ignores these ends by SIGKILL only, from outside.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	supervisor, err := syscall.ForkExec(executable, []string{executable, roleNodeMain, c.dir}, &syscall.ProcAttr{
		Dir: c.dir, Env: os.Environ(), Files: []uintptr{0, 1, 2, progressFD},
	})
	if err != nil {
		return fmt.Errorf("start the node's supervisor: %w", err)
	}
	if err := unix.Close(progressFD); err != nil {
		return fmt.Errorf("close the progress pipe: %w", err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for the node's processes: %w", err)
		}
		if pid == supervisor {
			return fmt.Errorf("the node's supervisor ended (status %d, signal %d)", status.ExitStatus(), status.Signal())
		}
	}
}

// joinNamespace makes the calling thread see a process's namespace of this kind.
func joinNamespace(pid int, kind string, flag int) error {
	path := filepath.Join("/proc", strconv.Itoa(pid), "ns", kind)
	namespace, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the node's namespace: %w", err)
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), flag); err != nil {
		return fmt.Errorf("join %s: %w", path, err)
	}
	return nil
}

// nodeDialer connects to addresses of the node's network from a process outside of it. A socket
// belongs to the network of the thread that makes it, wherever it is used afterwards.
func nodeDialer(initPID int) (func(address string) (net.Conn, error), error) {
	inside, err := newThread(func() error { return joinNamespace(initPID, "net", unix.CLONE_NEWNET) })
	if err != nil {
		return nil, err
	}
	return func(address string) (conn net.Conn, err error) {
		// One numeric address: the dialer makes its socket on the calling thread.
		inside.run(func() { conn, err = net.DialTimeout("tcp4", address, dialWithin) })
		return conn, err
	}, nil
}

// execInNode runs a command in the node's network, mounts and processes and returns its exit code.
// As a process of the node it ends with the node.
func execInNode(initPID int, command *exec.Cmd) (code int, err error) {
	inside, err := newThread(func() error {
		// Threads share their working directory and root; to see other mounts this one must not.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("part from the other threads' file system: %w", err)
		}
		return errors.Join(
			joinNamespace(initPID, "net", unix.CLONE_NEWNET),
			joinNamespace(initPID, "pid", unix.CLONE_NEWPID),
			joinNamespace(initPID, "mnt", unix.CLONE_NEWNS),
		)
	})
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	inside.run(func() { err = command.Start() })
	if err != nil {
		return 0, fmt.Errorf("start %s in the node: %w", command.Path, err)
	}
	go func() {
		for s := range signals {
			_ = command.Process.Signal(s) // fails when it has just ended
		}
	}()
	err = command.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run %s in the node: %w", command.Path, err)
	}
	return 0, nil
}

// becomeCommand is this program's last step on the node before it is the caller's command: it asks
// the kernel to end the command with `exec`. The Go runtime can ask that for a child, but takes a
// parent in another process namespace for a dead one.
func becomeCommand(args []string) error {
	runtime.LockOSThread() // the request is the thread's
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for the end of %s with this process: %w", args[0], err)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("find a command on the node: %w", err)
	}
	if err := unix.Exec(path, args, os.Environ()); err != nil {
		return fmt.Errorf("run %s on the node: %w", path, err)
	}
	return nil
}
