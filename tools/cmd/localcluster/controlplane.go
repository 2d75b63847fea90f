package main

import (
	"context"
	"time"
)

const (
	controlPlaneWithin = 300 * time.Second
	nodeWithin         = 400 * time.Second
)

// startControlPlane starts what a cluster of either size has. Etcd and the API server come up side
// by side: the one waits for the other.
func (s *supervisor) startControlPlane(ctx context.Context, l layout, progress progressWriter) error {
	api, err := newAPIClient(l)
	if err != nil {
		return err
	}
	s.add(etcdCommand(l), launched)
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
	s.add(controllerManagerCommand(l), launched)
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
