package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// holdControlPlane runs the control plane as children of the keeper, on ports that it holds. It
// returns a channel for an end that nobody asked for, and a function that ends it.
func holdControlPlane(c cluster, s settings, progress progressWriter) (<-chan error, func() error, error) {
	var held []*os.File
	for _, port := range []*int{&s.Ports.API, &s.Ports.Etcd, &s.Ports.EtcdPeer} {
		number, file, err := reservePort()
		if err != nil {
			return nil, nil, err
		}
		*port, held = number, append(held, file)
	}
	if err := c.save(s); err != nil {
		return nil, nil, err
	}
	l := layoutOf(c, s)
	if err := l.writeAccess(); err != nil {
		return nil, nil, err
	}
	sup, err := newSupervisor(c.path("logs"))
	if err != nil {
		return nil, nil, err
	}
	stop := func() error {
		err := sup.stopAll()
		for _, file := range held {
			file.Close()
		}
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeoutCause(context.Background(), controlPlaneWithin,
			fmt.Errorf("not within %s", controlPlaneWithin))
		defer cancel()
		err := sup.startControlPlane(ctx, l, progress)
		if err == nil {
			sup.setReady()
			err = sup.serveControl(c.controlSocket())
		}
		progress.end(err)
		if err != nil {
			ended <- err
		}
	}()
	return ended, stop, nil
}

// holdNode runs the node in namespaces of its own, with a way in from 127.0.0.1 for the API server
// and NATS. It returns a channel for the node's end and a function that ends it.
func holdNode(c cluster, s settings, progress progressWriter) (<-chan error, func() error, error) {
	doors := []struct {
		port    *int
		address string
	}{
		{&s.Ports.API, net.JoinHostPort(nodeAddress, strconv.Itoa(nodeAPIPort))},
		{&s.Ports.NATS, net.JoinHostPort(nodeAddress, strconv.Itoa(natsPort))},
		{&s.Ports.NATSMonitor, net.JoinHostPort(nodeAddress, strconv.Itoa(natsMonitorPort))},
	}
	listeners := make([]net.Listener, len(doors))
	for i, door := range doors {
		listener, port, err := listenLoopback()
		if err != nil {
			return nil, nil, err
		}
		listeners[i], *door.port = listener, port
	}
	if err := layoutOf(c, s).writeAccess(); err != nil {
		return nil, nil, err
	}
	if err := makeCgroups(c.cgroup()); err != nil {
		return nil, nil, err
	}
	spawner, err := newThread(func() error { return nil })
	if err != nil {
		return nil, nil, err
	}
	// The node is started when its settings are complete but for its own process number.
	if err := c.save(s); err != nil {
		return nil, nil, err
	}
	node, err := c.startInit(spawner, progress.out, os.Stderr)
	if err != nil {
		return nil, nil, errors.Join(err, removeCgroups(c.cgroup()))
	}
	ended := make(chan error, 1)
	gone := make(chan struct{})
	go func() {
		ended <- node.Wait()
		close(gone)
	}()
	stop := func() error {
		// Process 1 takes its namespace along; fails when it has gone already.
		_ = node.Process.Kill()
		<-gone
		return removeCgroups(c.cgroup())
	}
	if s.Init, err = identify(node.Process.Pid); err == nil {
		err = c.save(s)
	}
	var dial func(string) (net.Conn, error)
	if err == nil {
		dial, err = nodeDialer(node.Process.Pid)
	}
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	for i, door := range doors {
		go forward(listeners[i], func() (net.Conn, error) { return dial(door.address) })
	}
	// Only the node's side still holds the pipe, so its end is seen by `up`.
	return ended, stop, progress.out.Close()
}
