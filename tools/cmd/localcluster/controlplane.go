package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	controlPlaneWithin = 120 * time.Second
	nodeWithin         = 180 * time.Second
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

// startControlPlane starts what a cluster of either size has. Etcd and the API server come up side
// by side: the one waits for the other.
func (s *supervisor) startControlPlane(ctx context.Context, l layout, progress progressWriter) error {
	api, err := newAPIClient(l)
	if err != nil {
		return err
	}
	always := func(context.Context) error { return nil }
	s.add(etcdCommand(l), always)
	s.add(apiServerCommand(l), api.found("/readyz"))
	started := []string{"etcd", "kube-apiserver"}
	for _, name := range started {
		if err := s.launch(name); err != nil {
			return err
		}
	}
	if err := s.waitFor(ctx, "the API server", api.found("/readyz"), started...); err != nil {
		return err
	}
	if !l.ControllerManager {
		progress.step("API server ready")
		return nil
	}
	s.add(controllerManagerCommand(l), always)
	if err := s.start(ctx, "kube-controller-manager"); err != nil {
		return err
	}
	progress.step("API server ready")
	// Pods are refused in a namespace before the controller manager has made its account.
	account := api.found("/api/v1/namespaces/default/serviceaccounts/default")
	if err := s.waitFor(ctx, "the default service account", account, append(started, "kube-controller-manager")...); err != nil {
		return err
	}
	progress.step("control plane ready")
	return nil
}
