package main

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// reservePort binds a free port of 127.0.0.1 without listening on it. As long as the file is open,
// the kernel gives the port to nobody but to programs of this user that share it on purpose
// (SO_REUSEPORT), so a killed API server finds its port again.
func reservePort() (port int, held *os.File, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("make a socket to reserve a port: %w", err)
	}
	held = os.NewFile(uintptr(fd), "reserved port")
	defer func() {
		if err != nil {
			held.Close()
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, nil, fmt.Errorf("share a reserved port: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, nil, fmt.Errorf("reserve a port: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, nil, fmt.Errorf("ask for the reserved port: %w", err)
	}
	address, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return 0, nil, fmt.Errorf("ask for the reserved port: got an address of type %T", name)
	}
	return address.Port, held, nil
}

// listenLoopback listens on a free port of 127.0.0.1.
func listenLoopback() (net.Listener, int, error) {
	listener, err := net.Listen("tcp4", loopback+":0")
	if err != nil {
		return nil, 0, fmt.Errorf("listen on a free port: %w", err)
	}
	return listener, listener.Addr().(*net.TCPAddr).Port, nil
}
