package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var testToolchain = toolchain{version: "go1.26.0", goos: "linux", goarch: "amd64"}

func testModule(t *testing.T) string {
	t.Helper()
	module := t.TempDir()
	writeTestFile(t, filepath.Join(module, "go.mod"), "module test\n", 0o644)
	writeTestFile(t, filepath.Join(module, "cmd", "app", "main.go"), "package main\n", 0o644)
	return module
}

var testProgram = program{name: "app", target: "./cmd/app", sources: []string{"go.mod", "cmd/app"}, ldflags: "-s"}

func keyOf(t *testing.T, module string, p program, tc toolchain) string {
	t.Helper()
	key, err := cacheKey(module, p, tc)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTheCacheKeyIsThatOfTheContentNotOfThePlace(t *testing.T) {
	first, second := keyOf(t, testModule(t), testProgram, testToolchain), keyOf(t, testModule(t), testProgram, testToolchain)
	if first != second {
		t.Errorf("two equal modules have the keys %s and %s", first, second)
	}
}

func TestEveryInputChangesTheCacheKey(t *testing.T) {
	before := keyOf(t, testModule(t), testProgram, testToolchain)
	for what, change := range map[string]func(module string, p *program, tc *toolchain){
		"source file": func(module string, _ *program, _ *toolchain) {
			writeTestFile(t, filepath.Join(module, "cmd", "app", "main.go"), "package main // changed\n", 0o644)
		},
		"new source file": func(module string, _ *program, _ *toolchain) {
			writeTestFile(t, filepath.Join(module, "cmd", "app", "more.go"), "package main\n", 0o644)
		},
		"module file": func(module string, _ *program, _ *toolchain) {
			writeTestFile(t, filepath.Join(module, "go.mod"), "", 0o644)
		},
		"Go version":   func(_ string, _ *program, tc *toolchain) { tc.version = "go1.26.1" },
		"architecture": func(_ string, _ *program, tc *toolchain) { tc.goarch = "arm64" },
		"link flags":   func(_ string, p *program, _ *toolchain) { p.ldflags = "-w" },
		"target":       func(_ string, p *program, _ *toolchain) { p.target += "@v2" },
		"links":        func(_ string, p *program, _ *toolchain) { p.links = []string{"other"} },
	} {
		t.Run(what, func(t *testing.T) {
			module, p, tc := testModule(t), testProgram, testToolchain
			change(module, &p, &tc)
			if after := keyOf(t, module, p, tc); after == before {
				t.Errorf("the key is still %s", after)
			}
		})
	}
}

func TestTestsAndOtherFoldersDoNotChangeTheCacheKey(t *testing.T) {
	module := testModule(t)
	before := keyOf(t, module, testProgram, testToolchain)
	writeTestFile(t, filepath.Join(module, "cmd", "app", "main_test.go"), "package main\n", 0o644)
	writeTestFile(t, filepath.Join(module, "cmd", "other", "main.go"), "package main\n", 0o644)
	if after := keyOf(t, module, testProgram, testToolchain); after != before {
		t.Errorf("the key was %s and is %s", before, after)
	}
}

func TestEveryProgramHasSourcesThatExistOrAPinnedVersion(t *testing.T) {
	for _, p := range allPrograms() {
		if _, err := cacheKey("../..", p, testToolchain); err != nil {
			t.Error(err)
		}
		if !p.inModule() && !strings.Contains(p.target, "@v") {
			t.Errorf("%s is not pinned: %s", p.name, p.target)
		}
	}
}

func TestALinkThatIsRightIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	w := workspace{bin: filepath.Join(dir, "bin")}
	folder := filepath.Join(dir, "app-1")
	writeTestFile(t, filepath.Join(folder, "app"), "", 0o755)
	place := filepath.Join(w.bin, "app")
	if err := w.link(testProgram, folder); err != nil {
		t.Fatal(err)
	}
	before, err := os.Lstat(place)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.link(testProgram, folder); err != nil {
		t.Fatal(err)
	}
	after, err := os.Lstat(place)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("the link was replaced")
	}
	if err := w.link(testProgram, filepath.Join(dir, "app-2")); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(place); err != nil || target != filepath.Join(dir, "app-2", "app") {
		t.Errorf("the link points at %s, %v", target, err)
	}
}

func TestBuildProgressTellsWhatIsKnown(t *testing.T) {
	for _, c := range []struct {
		downloaded, compiled, expected int
		want                           string
	}{
		{0, 0, 0, "12 s, 0 packages compiled"},
		{3, 7, 0, "12 s, 3 modules fetched, 7 packages compiled"},
		{0, 7, 100, "12 s, 7 of at most 100 packages compiled"},
	} {
		if got := buildProgress(12400*time.Millisecond, c.downloaded, c.compiled, c.expected); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestABuildReportKeepsTheLastLinesForTheError(t *testing.T) {
	var out bytes.Buffer
	r := newBuildReport("app", &out)
	for range errorLines {
		if _, err := r.Write([]byte("some/package\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Write([]byte("main.go:1: broken\n")); err != nil {
		t.Fatal(err)
	}
	r.end()
	lines := strings.Split(r.tail(), "\n")
	if len(lines) != errorLines || lines[errorLines-1] != "main.go:1: broken" {
		t.Errorf("kept %d lines, the last one %q", len(lines), lines[len(lines)-1])
	}
	if !strings.Contains(out.String(), "app: done, 0 s, 31 packages compiled") {
		t.Errorf("told %q", out.String())
	}
}
