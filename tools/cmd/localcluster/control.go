package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	actionStart = "start"
	actionStop  = "stop"
	actionKill  = "kill"

	startWithin = 180 * time.Second
)

// shortPath names a file by an open folder: the path of a socket ends at 107 bytes, that of a
// checkout does not. The folder must stay open while the name is used.
func shortPath(file string) (name string, folder *os.File, err error) {
	folder, err = os.Open(filepath.Dir(file))
	if err != nil {
		return "", nil, fmt.Errorf("open the folder of %s: %w", file, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(file)), folder, nil
}

// serveControl answers `status` and the requests to start and stop programs, for as long as the
// process lives.
func (s *supervisor) serveControl(socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old control socket: %w", err)
	}
	name, folder, err := shortPath(socket)
	if err != nil {
		return err
	}
	defer folder.Close()
	listener, err := net.Listen("unix", name)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", socket, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// The asker is gone when this fails.
		_ = json.NewEncoder(w).Encode(s.report())
	})
	mux.HandleFunc("POST /programs/{name}/{action}", func(w http.ResponseWriter, r *http.Request) {
		if err := s.act(r.Context(), r.PathValue("name"), r.PathValue("action")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: startWithin}
	go func() { _ = server.Serve(listener) }() // ends with the process
	return nil
}

func (s *supervisor) act(ctx context.Context, name, action string) error {
	s.acting.Lock()
	defer s.acting.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	switch action {
	case actionStart:
		return s.start(ctx, name)
	case actionStop:
		return s.stop(name, syscall.SIGTERM)
	case actionKill:
		return s.stop(name, syscall.SIGKILL)
	default:
		return fmt.Errorf("no action %q: use start, stop or kill", action)
	}
}

// controlRequest asks the cluster's supervisor.
func (c cluster) controlRequest(method, path string) ([]byte, error) {
	name, folder, err := shortPath(c.controlSocket())
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	client := http.Client{Timeout: 2 * startWithin, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", name)
		},
	}}
	request, err := http.NewRequest(method, "http://cluster"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("make the request %s: %w", path, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask cluster %s: %w", c.name, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer of cluster %s: %w", c.name, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(string(bytes.TrimSpace(answer)))
	}
	return answer, nil
}

func (c cluster) report() (report, error) {
	var r report
	answer, err := c.controlRequest(http.MethodGet, "/status")
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return r, fmt.Errorf("read the status of cluster %s: %w", c.name, err)
	}
	return r, nil
}

func (c cluster) control(program, action string) error {
	_, err := c.controlRequest(http.MethodPost, "/programs/"+program+"/"+action)
	return err
}
