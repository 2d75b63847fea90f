package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func writeTestFile(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func testImage(t *testing.T) imageSpec {
	t.Helper()
	dir := t.TempDir()
	return imageSpec{
		ref: "lookback.dev/test:1", entrypoint: []string{"/bin/app", "run"}, user: "65532:65532",
		files: []imageFile{
			{writeTestFile(t, filepath.Join(dir, "app"), "program", 0o755), "/bin/app"},
			{writeTestFile(t, filepath.Join(dir, "conf"), "text", 0o600), "/etc/app/conf"},
		},
	}
}

// unpack returns the files of a tarball by name, and their headers in order.
func unpack(t *testing.T, archive []byte) (map[string][]byte, []*tar.Header) {
	t.Helper()
	files := map[string][]byte{}
	var headers []*tar.Header
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name], headers = content, append(headers, header)
	}
}

func encodeImage(t *testing.T, spec imageSpec) (archive []byte, digest string) {
	t.Helper()
	var out bytes.Buffer
	digest, err := writeImage(&out, spec)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), digest
}

func TestSameFilesGiveTheSameBytes(t *testing.T) {
	spec := testImage(t)
	first, _ := encodeImage(t, spec)
	later := time.Now().Add(time.Hour)
	for _, file := range spec.files {
		if err := os.Chtimes(file.source, later, later); err != nil {
			t.Fatal(err)
		}
	}
	slices.Reverse(spec.files)
	second, _ := encodeImage(t, spec)
	if !bytes.Equal(first, second) {
		t.Error("the order and the times of the files got into the image")
	}
}

func TestOtherContentGivesAnotherDigest(t *testing.T) {
	spec := testImage(t)
	_, first := encodeImage(t, spec)
	writeTestFile(t, spec.files[0].source, "another program", 0o755)
	if _, second := encodeImage(t, spec); first == second {
		t.Errorf("both images have the digest %s", first)
	}
}

func TestEveryDigestInTheImageNamesABlobWithThatContent(t *testing.T) {
	archive, digest := encodeImage(t, testImage(t))
	files, _ := unpack(t, archive)
	blob := func(d ociDescriptor) []byte {
		content, ok := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if !ok || digestOf(content) != d.Digest || len(content) != d.Size {
			t.Fatalf("no blob of %+v", d)
		}
		return content
	}
	var index ociIndex
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if index.Manifests[0].Digest != digest {
		t.Errorf("returned digest %s, index has %s", digest, index.Manifests[0].Digest)
	}
	var manifest ociManifest
	if err := json.Unmarshal(blob(index.Manifests[0]), &manifest); err != nil {
		t.Fatal(err)
	}
	var config ociConfig
	if err := json.Unmarshal(blob(manifest.Config), &config); err != nil {
		t.Fatal(err)
	}
	layer := blob(manifest.Layers[0])
	if !slices.Equal(config.RootFS.DiffIDs, []string{digestOf(layer)}) {
		t.Errorf("diff ids %v do not name the layer", config.RootFS.DiffIDs)
	}
}

func TestTheLayerHoldsFoldersBeforeTheirFilesAndOnlyExecutableModes(t *testing.T) {
	layer, err := imageLayer(testImage(t).files)
	if err != nil {
		t.Fatal(err)
	}
	_, headers := unpack(t, layer)
	type entry struct {
		name string
		mode int64
	}
	var got []entry
	for _, header := range headers {
		got = append(got, entry{header.Name, header.Mode})
	}
	want := []entry{{"bin/", 0o755}, {"bin/app", 0o755}, {"etc/", 0o755}, {"etc/app/", 0o755}, {"etc/app/conf", 0o644}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTwoFilesAtOnePlaceAreRefused(t *testing.T) {
	spec := testImage(t)
	spec.files[1].destination = spec.files[0].destination
	if _, err := imageLayer(spec.files); err == nil || !strings.Contains(err.Error(), "/bin/app") {
		t.Errorf("got error %v, want one that names /bin/app", err)
	}
}

func TestAnImageFileNeedsAnAbsolutePlace(t *testing.T) {
	for _, argument := range []string{"app", "app:", ":/bin/app", "app:bin/app"} {
		if file, err := parseImageFile(argument); err == nil {
			t.Errorf("%q was taken as %+v", argument, file)
		}
	}
}

func TestAFailedImageLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	spec := imageSpec{ref: "lookback.dev/test:1", files: []imageFile{{filepath.Join(dir, "missing"), "/app"}}}
	if _, err := writeImageFile(filepath.Join(dir, "out", "image.tar"), spec); err == nil {
		t.Fatal("an image of a missing file was made")
	}
	left, err := os.ReadDir(filepath.Join(dir, "out"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
