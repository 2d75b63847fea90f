package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// apiClient asks the cluster's API server the few things that `up` waits for. A request of kubectl
// would cost half a second each.
type apiClient struct {
	url   string
	token string
	http  *http.Client
}

func newAPIClient(l layout) (apiClient, error) {
	ca, err := os.ReadFile(l.path("pki", "ca.crt"))
	if err != nil {
		return apiClient{}, fmt.Errorf("read the certificate of the authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return apiClient{}, fmt.Errorf("read the certificate of the authority: no certificate in %s", l.path("pki", "ca.crt"))
	}
	return apiClient{
		url:   l.apiURL(),
		token: l.Token,
		http: &http.Client{
			Timeout:   30 * time.Second,
			Transport: &http.Transport{Proxy: nil, TLSClientConfig: &tls.Config{RootCAs: roots}},
		},
	}, nil
}

func (a apiClient) do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("make the request %s %s: %w", method, path, err)
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := a.http.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the API server: %w", err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("read the API server's answer to %s %s: %w", method, path, err)
	}
	return response.StatusCode, answer, nil
}

// found asks for an object and tells whether it is there.
func (a apiClient) found(path string) probe {
	return func(ctx context.Context) error {
		status, answer, err := a.do(ctx, http.MethodGet, path, nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("GET %s: %d %s", path, status, bytes.TrimSpace(answer))
		}
		return err
	}
}

// create makes an object; one that is there already is left as it is.
func (a apiClient) create(ctx context.Context, path string, body []byte) error {
	status, answer, err := a.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	if status != http.StatusCreated && status != http.StatusConflict {
		return fmt.Errorf("POST %s: %d %s", path, status, bytes.TrimSpace(answer))
	}
	return nil
}

func (a apiClient) nodeReady(ctx context.Context) error {
	status, answer, err := a.do(ctx, http.MethodGet, "/api/v1/nodes/"+nodeName, nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("the kubelet has not registered the node yet (%d)", status)
	}
	return readyCondition(answer)
}

// readyCondition is nil for a node object that says it is Ready.
func readyCondition(node []byte) error {
	var object struct {
		Status struct {
			Conditions []struct {
				Type    string `json:"type"`
				Status  string `json:"status"`
				Message string `json:"message"`
			} `json:"conditions"`
		} `json:"status"`
	}
	if err := json.Unmarshal(node, &object); err != nil {
		return fmt.Errorf("read the node: %w", err)
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("the node is not ready: %s", condition.Message)
		}
	}
	return fmt.Errorf("the node has no Ready condition yet")
}
