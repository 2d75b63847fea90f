package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAProcessIsNotMistakenForALaterOneWithItsNumber(t *testing.T) {
	me, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !me.alive() {
		t.Error("this process is said to have ended")
	}
	if earlier := (processID{PID: me.PID, Start: me.Start - 1}); earlier.alive() {
		t.Error("an earlier process of this number is said to be alive")
	}
}

func TestTheNameOfAProcessDoesNotShiftItsFields(t *testing.T) {
	rest := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	for _, name := range []string{"(sleep)", "(a b) c)", "() S 9)"} {
		if got, err := parseStartTime("123 " + name + rest); err != nil || got != 4711 {
			t.Errorf("%s: got %d, %v", name, got, err)
		}
	}
}

func TestAZombieHasEnded(t *testing.T) {
	if _, err := parseStartTime("123 (sh) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"); err == nil {
		t.Error("a zombie has a start time")
	}
}

func TestSettingsComeBackAsTheyWereSaved(t *testing.T) {
	c := cluster{name: "test", dir: t.TempDir()}
	if _, found, err := c.settings(); found || err != nil {
		t.Fatalf("found %t, %v before any was saved", found, err)
	}
	saved := settings{Name: "test", Size: fullNode, NATS: true, Ports: ports{API: 1}, Keeper: processID{2, 3}}
	if err := c.save(saved); err != nil {
		t.Fatal(err)
	}
	if got, found, err := c.settings(); !found || err != nil || got != saved {
		t.Errorf("got %+v, %t, %v", got, found, err)
	}
}

func TestClusterNamesArePathAndCgroupSafe(t *testing.T) {
	w := workspace{runs: "/runs"}
	for _, name := range []string{"", "..", "a/b", "A", "-a", "a-", "a b", strings.Repeat("a", 41)} {
		if _, err := w.cluster(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	for _, name := range []string{"a", "a-1", strings.Repeat("a", 40)} {
		if _, err := w.cluster(name); err != nil {
			t.Error(err)
		}
	}
}

func TestClustersOfOneNameInTwoCheckoutsHaveTheirOwnCgroups(t *testing.T) {
	a, b := cluster{"test", "/one/.run/test"}, cluster{"test", "/two/.run/test"}
	if a.cgroup() == b.cgroup() {
		t.Errorf("both have %s", a.cgroup())
	}
}

func TestALockIsOfTheFolderThatIsThere(t *testing.T) {
	c := cluster{name: "test", dir: filepath.Join(t.TempDir(), "test")}
	unlock, err := c.lock()
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan func())
	go func() {
		unlock, err := c.lock()
		if err != nil {
			t.Error(err)
		}
		second <- unlock
	}()
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	unlock()
	select {
	case unlock := <-second:
		defer unlock()
	case <-time.After(time.Minute):
		t.Fatal("the second caller got no lock")
	}
	if _, err := os.Stat(c.dir); err != nil {
		t.Errorf("the second caller holds a folder that is not there: %v", err)
	}
}

func TestTheNameIsTakenFromTheFrontOnly(t *testing.T) {
	for _, c := range []struct {
		args     []string
		fallback string
		name     string
		rest     []string
	}{
		{[]string{"--name", "a", "get", "pods"}, "", "a", []string{"get", "pods"}},
		{[]string{"--name=a", "-n", "ns"}, "b", "a", []string{"-n", "ns"}},
		{[]string{"get", "--name", "a"}, "b", "b", []string{"get", "--name", "a"}},
		{nil, "", defaultCluster, nil},
	} {
		if name, rest := takeName(c.args, c.fallback); name != c.name || !slices.Equal(rest, c.rest) {
			t.Errorf("%q: got %s and %q", c.args, name, rest)
		}
	}
}

func TestCgroupHierarchiesOfEveryVersionAreFound(t *testing.T) {
	for what, c := range map[string]struct {
		mountinfo string
		want      []string
	}{
		"version 1 beside 2": {
			"25 1 0:20 / / rw - ext4 /dev/a rw\n" +
				"31 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
				"32 31 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
				"33 31 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			[]string{"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/unified"},
		},
		"version 2": {
			"31 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
			[]string{"/sys/fs/cgroup"},
		},
		"elsewhere": {"31 25 0:26 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n", nil},
	} {
		if got, err := parseCgroupRoots(strings.NewReader(c.mountinfo)); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
}

func TestAStartThatEndsWithoutAWordHasFailed(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"step":"one","seconds":1}` + "\n" + `{"ready":true}` + "\n": true,
		`{"step":"one","seconds":1}` + "\n":                           false,
		`{"error":"broken"}` + "\n":                                   false,
		"":                                                            false,
	} {
		if err := followProgress(strings.NewReader(text), io.Discard); (err == nil) != ok {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestMissingToolsAreNamedWithTheirPackagesOnce(t *testing.T) {
	err := missingTools(func(name string) bool { return name != "ctr" && name != "containerd" }, func() bool { return false })
	if err == nil {
		t.Fatal("nothing is missing")
	}
	if got := err.Error(); !strings.HasSuffix(got, "install --no-install-recommends containerd containernetworking-plugins") {
		t.Errorf("got %q", got)
	}
	if err := missingTools(func(string) bool { return true }, func() bool { return true }); err != nil {
		t.Errorf("all is there, got %v", err)
	}
}
