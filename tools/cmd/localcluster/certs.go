package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

const certificateLife = 365 * 24 * time.Hour

// authority signs the certificates of one cluster.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(now time.Time) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("make the key of the authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "lookback-local-ca"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certificateLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("make the certificate of the authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, fmt.Errorf("read the certificate of the authority: %w", err)
	}
	return authority{certificate: certificate, key: key, pem: encodePEM("CERTIFICATE", der)}, nil
}

// identity is what a certificate says of its holder.
type identity struct {
	name   string
	group  string // organisation; Kubernetes reads it as a group
	usage  x509.ExtKeyUsage
	hosts  []string
	ips    []net.IP
	serial int64
}

// issue returns a certificate and its key in PEM.
func (a authority) issue(id identity) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the key of %s: %w", id.name, err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(id.serial),
		Subject:      pkix.Name{CommonName: id.name},
		NotBefore:    a.certificate.NotBefore,
		NotAfter:     a.certificate.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{id.usage},
		DNSNames:     id.hosts,
		IPAddresses:  id.ips,
	}
	if id.group != "" {
		template.Subject.Organization = []string{id.group}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign the certificate of %s: %w", id.name, err)
	}
	key, err = encodeKey(private)
	return encodePEM("CERTIFICATE", der), key, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return encodePEM("EC PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// apiServerIdentity holds every name by which the API server is called: from the host, in the
// node's namespace, and as a Service from pods.
func apiServerIdentity() identity {
	return identity{
		name:  "kube-apiserver",
		usage: x509.ExtKeyUsageServerAuth,
		hosts: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		},
		ips:    []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(nodeAddress), net.ParseIP(apiServiceAddress)},
		serial: 2,
	}
}

// writeCertificates fills the cluster's `pki` folder.
func (c cluster) writeCertificates(now time.Time) error {
	ca, err := newAuthority(now)
	if err != nil {
		return err
	}
	serverCertificate, serverKey, err := ca.issue(apiServerIdentity())
	if err != nil {
		return err
	}
	// With this the API server calls the kubelet, for logs and exec.
	clientCertificate, clientKey, err := ca.issue(identity{
		name: "kube-apiserver-kubelet-client", group: "system:masters", usage: x509.ExtKeyUsageClientAuth, serial: 3,
	})
	if err != nil {
		return err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key for service account tokens: %w", err)
	}
	signerKey, err := encodeKey(signer)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt":               ca.pem,
		"apiserver.crt":        serverCertificate,
		"apiserver.key":        serverKey,
		"kubelet-client.crt":   clientCertificate,
		"kubelet-client.key":   clientKey,
		"service-accounts.key": signerKey,
	} {
		if err := writeFile(c.path("pki", name), content); err != nil {
			return err
		}
	}
	return nil
}
