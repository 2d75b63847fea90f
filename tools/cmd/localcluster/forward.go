package main

import (
	"errors"
	"io"
	"log"
	"net"
	"sync"
)

// forward gives every connection that the listener takes a partner made by dial, until the
// listener is closed. A partner that cannot be had ends the connection.
func forward(listener net.Listener, dial func() (net.Conn, error)) {
	for {
		near, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Printf("accept on %s: %v", listener.Addr(), err)
			continue
		}
		go func() {
			far, err := dial()
			if err != nil {
				near.Close()
				return
			}
			join(near, far)
		}()
	}
}

// join copies both ways until both sides have ended, passing on the end of each direction alone:
// a client may close its sending side and still wait for the answer.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		if _, err := io.Copy(to, from); err != nil {
			// Broken, not ended: the peer has to see it at once.
			a.Close()
			b.Close()
			return
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			// An error means the connection is gone, which the other direction sees too.
			_ = half.CloseWrite()
		}
	}
	both.Go(func() { pass(a, b) })
	both.Go(func() { pass(b, a) })
	both.Wait()
	a.Close()
	b.Close()
}
