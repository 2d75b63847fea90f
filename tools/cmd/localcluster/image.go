package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// imageSpec describes an image of one layer.
type imageSpec struct {
	ref        string // fully qualified, or the kubelet looks for it elsewhere
	entrypoint []string
	user       string
	files      []imageFile
}

// imageFile is a file of the host and its place in the image.
type imageFile struct {
	source      string
	destination string
}

func parseImageFile(argument string) (imageFile, error) {
	source, destination, ok := strings.Cut(argument, ":")
	if !ok || source == "" || !path.IsAbs(destination) {
		return imageFile{}, fmt.Errorf("file %q: write SOURCE:/PLACE/IN/IMAGE", argument)
	}
	return imageFile{source: source, destination: path.Clean(destination)}, nil
}

type (
	ociConfig struct {
		Architecture string       `json:"architecture"`
		OS           string       `json:"os"`
		Config       ociRunConfig `json:"config"`
		RootFS       ociRootFS    `json:"rootfs"`
	}
	ociRunConfig struct {
		User       string   `json:"User,omitempty"`
		Entrypoint []string `json:"Entrypoint"`
		WorkingDir string   `json:"WorkingDir"`
	}
	ociRootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	ociDescriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	ociManifest struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        ociDescriptor   `json:"config"`
		Layers        []ociDescriptor `json:"layers"`
	}
	ociIndex struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     []ociDescriptor `json:"manifests"`
	}
)

const (
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
)

// writeImage writes an OCI image layout as a tarball and returns the digest of its manifest. The
// same files give the same bytes: no time, owner or order of the host gets in.
func writeImage(out io.Writer, spec imageSpec) (digest string, err error) {
	layer, err := imageLayer(spec.files)
	if err != nil {
		return "", err
	}
	config, err := json.Marshal(ociConfig{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Config:       ociRunConfig{User: spec.user, Entrypoint: spec.entrypoint, WorkingDir: "/"},
		RootFS:       ociRootFS{Type: "layers", DiffIDs: []string{digestOf(layer)}},
	})
	if err != nil {
		return "", fmt.Errorf("encode the image's configuration: %w", err)
	}
	manifest, err := json.Marshal(ociManifest{
		SchemaVersion: 2,
		MediaType:     mediaManifest,
		Config:        describe(mediaConfig, config),
		Layers:        []ociDescriptor{describe(mediaLayer, layer)},
	})
	if err != nil {
		return "", fmt.Errorf("encode the image's manifest: %w", err)
	}
	entry := describe(mediaManifest, manifest)
	entry.Annotations = map[string]string{
		"io.containerd.image.name":          spec.ref,
		"org.opencontainers.image.ref.name": spec.ref,
	}
	index, err := json.Marshal(ociIndex{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []ociDescriptor{entry}})
	if err != nil {
		return "", fmt.Errorf("encode the image's index: %w", err)
	}
	archive := tar.NewWriter(out)
	for _, file := range []struct {
		name    string
		content []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blobName(layer), layer},
		{blobName(config), config},
		{blobName(manifest), manifest},
	} {
		if err := addFile(archive, file.name, 0o644, file.content); err != nil {
			return "", err
		}
	}
	if err := archive.Close(); err != nil {
		return "", fmt.Errorf("end the image: %w", err)
	}
	return entry.Digest, nil
}

// imageLayer is a tarball of the files, sorted, below the folders that hold them.
func imageLayer(files []imageFile) ([]byte, error) {
	if len(files) == 0 {
		return nil, errors.New("an image needs at least one file")
	}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b imageFile) int { return strings.Compare(a.destination, b.destination) })
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	made := map[string]bool{"/": true, ".": true}
	for i, file := range files {
		if i > 0 && files[i-1].destination == file.destination {
			return nil, fmt.Errorf("two files for %s in one image", file.destination)
		}
		if err := addFolders(archive, made, path.Dir(file.destination)); err != nil {
			return nil, err
		}
		info, err := os.Stat(file.source)
		if err != nil {
			return nil, fmt.Errorf("look at a file of the image: %w", err)
		}
		content, err := os.ReadFile(file.source)
		if err != nil {
			return nil, fmt.Errorf("read a file of the image: %w", err)
		}
		mode := int64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		if err := addFile(archive, strings.TrimPrefix(file.destination, "/"), mode, content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("end the layer: %w", err)
	}
	return layer.Bytes(), nil
}

func addFolders(archive *tar.Writer, made map[string]bool, folder string) error {
	if made[folder] {
		return nil
	}
	if err := addFolders(archive, made, path.Dir(folder)); err != nil {
		return err
	}
	made[folder] = true
	header := &tar.Header{
		Typeflag: tar.TypeDir, Name: strings.TrimPrefix(folder, "/") + "/", Mode: 0o755, ModTime: time.Unix(0, 0),
	}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("add folder %s to the image: %w", folder, err)
	}
	return nil
}

func addFile(archive *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0),
	}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("add %s to the image: %w", name, err)
	}
	if _, err := archive.Write(content); err != nil {
		return fmt.Errorf("write %s into the image: %w", name, err)
	}
	return nil
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func blobName(content []byte) string {
	return "blobs/sha256/" + strings.TrimPrefix(digestOf(content), "sha256:")
}

func describe(mediaType string, content []byte) ociDescriptor {
	return ociDescriptor{MediaType: mediaType, Digest: digestOf(content), Size: len(content)}
}

// writeImageFile writes the image beside its place first, so that a reader never sees half of it.
func writeImageFile(file string, spec imageSpec) (digest string, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", fmt.Errorf("make the folder of %s: %w", file, err)
	}
	next, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return "", fmt.Errorf("make a file beside %s: %w", file, err)
	}
	defer os.Remove(next.Name()) // gone already unless an error came first
	defer next.Close()
	if digest, err = writeImage(next, spec); err != nil {
		return "", fmt.Errorf("make image %s: %w", spec.ref, err)
	}
	if err := next.Close(); err != nil {
		return "", fmt.Errorf("write image %s: %w", spec.ref, err)
	}
	if err := os.Rename(next.Name(), file); err != nil {
		return "", fmt.Errorf("put image %s in its place: %w", spec.ref, err)
	}
	return digest, nil
}
