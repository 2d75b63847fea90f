package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAReservedPortIsGivenToNobodyElse(t *testing.T) {
	port, held, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	listener, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", loopback, port))
	if err == nil {
		listener.Close()
		t.Errorf("port %d was free", port)
	}
}

func TestAReservedPortIsSharedOnPurposeAgainAndAgain(t *testing.T) {
	port, held, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	share := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	for range 2 {
		listener, err := share.Listen(context.Background(), "tcp4", fmt.Sprintf("%s:%d", loopback, port))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if conn, err := listener.Accept(); err == nil {
				_, _ = conn.Write([]byte("here"))
				conn.Close()
			}
		}()
		conn, err := net.Dial("tcp4", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != "here" {
			t.Errorf("the held port took a connection: %q, %v", got, err)
		}
		conn.Close()
		listener.Close()
	}
}

// door forwards connections to the handler and returns the address to call.
func door(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	inside, _, err := listenLoopback()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	go func() {
		for {
			conn, err := inside.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	outside, _, err := listenLoopback()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	go forward(outside, func() (net.Conn, error) { return net.Dial("tcp4", inside.Addr().String()) })
	return outside.Addr().String()
}

func TestAForwardedAnswerArrivesAfterTheCallerHasSaidAll(t *testing.T) {
	address := door(t, func(conn net.Conn) {
		defer conn.Close()
		all, _ := io.ReadAll(conn)
		_, _ = conn.Write(append([]byte("got "), all...))
	})
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || string(answer) != "got hello" {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestACallerIsCutOffWhenNobodyIsInside(t *testing.T) {
	outside, _, err := listenLoopback()
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	go forward(outside, func() (net.Conn, error) { return nil, net.ErrClosed })
	conn, err := net.Dial("tcp4", outside.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection stayed open")
	}
}
