package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func buildCommand(ctx context.Context, w workspace, args []string) error {
	flags := newFlags("build")
	if err := parse(flags, args, -1); err != nil {
		return err
	}
	programs := allPrograms()
	if flags.NArg() > 0 {
		programs = nil
		for _, name := range flags.Args() {
			p, err := programNamed(name)
			if err != nil {
				return err
			}
			programs = append(programs, p)
		}
	}
	for _, p := range programs {
		folder, err := w.ensure(ctx, p, os.Stderr)
		if err != nil {
			return err
		}
		fmt.Println(filepath.Join(folder, p.name))
	}
	return nil
}

// makeCertificatesCommand is for tests of TLS: no key has to be kept for them.
func makeCertificatesCommand(_ context.Context, _ workspace, args []string) error {
	var out string
	flags := newFlags("make-certificates")
	flags.StringVar(&out, "out", "", "folder to write to")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	if out == "" {
		return errors.New("make-certificates: --out is needed")
	}
	ca, err := newAuthority(time.Now())
	if err != nil {
		return err
	}
	certificate, key, err := ca.issue(identity{
		name:   "localhost",
		usage:  x509.ExtKeyUsageServerAuth,
		hosts:  []string{"localhost"},
		ips:    []net.IP{net.ParseIP("127.0.0.1")},
		serial: 2,
	})
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.pem": ca.pem, "server.pem": certificate, "server-key.pem": key,
	} {
		if err := writeFile(filepath.Join(out, name), content); err != nil {
			return err
		}
	}
	return nil
}

type words []string

func (w *words) String() string { return strings.Join(*w, " ") }

func (w *words) Set(word string) error {
	*w = append(*w, word)
	return nil
}

func makeImageCommand(_ context.Context, _ workspace, args []string) error {
	var spec imageSpec
	var entrypoint words
	var out string
	flags := newFlags("make-image")
	flags.StringVar(&spec.ref, "ref", "", "name of the image, fully qualified")
	flags.StringVar(&out, "out", "", "tarball to write")
	flags.StringVar(&spec.user, "user", "65532:65532", "user and group that the program runs as")
	flags.Var(&entrypoint, "entrypoint", "a word of the command that the image runs; give it once a word")
	if err := parse(flags, args, -1); err != nil {
		return err
	}
	if spec.ref == "" || out == "" || len(entrypoint) == 0 {
		return errors.New("make-image: --ref, --out and --entrypoint are needed")
	}
	spec.entrypoint = entrypoint
	for _, argument := range flags.Args() {
		file, err := parseImageFile(argument)
		if err != nil {
			return err
		}
		spec.files = append(spec.files, file)
	}
	digest, err := writeImageFile(out, spec)
	if err != nil {
		return err
	}
	fmt.Printf("%s@%s\n", spec.ref, digest)
	return nil
}
