package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func testLayout(t *testing.T, s size) layout {
	t.Helper()
	return layoutOf(cluster{name: "test", dir: t.TempDir()}, settings{
		Name: "test", Size: s, Token: "TOKEN", Ports: ports{API: 1001, Etcd: 1002, EtcdPeer: 1003},
		Programs: programPaths{Kube: "/cache/kube"},
	})
}

func TestTheKubeletStaysInTheClustersCgroup(t *testing.T) {
	l := testLayout(t, fullNode)
	content, err := kubeletConfig(l)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		CgroupRoot string `json:"cgroupRoot"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	if config.CgroupRoot != l.cgroup() {
		t.Errorf("cgroupRoot is %q, want %q", config.CgroupRoot, l.cgroup())
	}
}

func TestTheKubeletFindsTheKernelSettingsThatItIsShown(t *testing.T) {
	content, err := kubeletConfig(testLayout(t, fullNode))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(`"protectKernelDefaults": true`)) {
		t.Error("the kubelet may change the machine's kernel settings")
	}
}

func TestContainerdsConfigurationQuotesPaths(t *testing.T) {
	l := testLayout(t, fullNode)
	l.dir = `/run dir/"quoted"`
	content, err := containerdConfig(l, "/usr/lib/cni", "overlayfs")
	if err != nil {
		t.Fatal(err)
	}
	if want := `root = "/run dir/\"quoted\"/containerd"`; !bytes.Contains(content, []byte(want+"\n")) {
		t.Errorf("no line %s in\n%s", want, content)
	}
}

func TestAControlPlaneListensOnLoopbackAtItsOwnPorts(t *testing.T) {
	l := testLayout(t, controlPlane)
	for _, want := range []string{"--bind-address=127.0.0.1", "--secure-port=1001", "--etcd-servers=http://127.0.0.1:1002"} {
		if args := apiServerCommand(l).args; !slices.Contains(args, want) {
			t.Errorf("the API server's arguments lack %s: %q", want, args)
		}
	}
	for _, want := range []string{"--listen-client-urls=http://127.0.0.1:1002", "--listen-peer-urls=http://127.0.0.1:1003"} {
		if args := etcdCommand(l).args; !slices.Contains(args, want) {
			t.Errorf("etcd's arguments lack %s: %q", want, args)
		}
	}
}

func TestANodeIsReachedAtItsBridgeAndFromTheHostThroughADoor(t *testing.T) {
	l := testLayout(t, fullNode)
	if args := apiServerCommand(l).args; !slices.Contains(args, "--advertise-address="+nodeAddress) {
		t.Errorf("pods cannot reach the API server: %q", args)
	}
	if l.apiURL() != "https://127.0.0.1:6443" {
		t.Errorf("the node's programs look for the API server at %s", l.apiURL())
	}
	if f := factsOf(l.cluster, l.settings); f.APIServer != "https://127.0.0.1:1001" {
		t.Errorf("the host looks for the API server at %s", f.APIServer)
	}
}

func TestTheAPIServersCertificateHoldsForEveryNameItIsCalledBy(t *testing.T) {
	ca, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := ca.issue(apiServerIdentity())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	for _, name := range []string{"127.0.0.1", "localhost", nodeAddress, apiServiceAddress, "kubernetes.default.svc"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretsAreReadableByTheirOwnerOnly(t *testing.T) {
	l := testLayout(t, controlPlane)
	if err := l.writeCertificates(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := l.writeAccess(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{l.kubeconfigFile(), l.nodeKubeconfigFile(), l.path("pki", "tokens.csv"), l.path("pki", "apiserver.key")} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", file, info.Mode().Perm())
		}
	}
}

func TestNoSecretIsAnArgumentOfAProgram(t *testing.T) {
	for _, s := range []size{controlPlane, fullNode} {
		l := testLayout(t, s)
		for _, c := range []command{
			etcdCommand(l), apiServerCommand(l), controllerManagerCommand(l), schedulerCommand(l), kubeletCommand(l),
			proxyCommand(l), provisionerCommand(l), containerdCommand(l), natsCommand(l),
		} {
			if strings.Contains(strings.Join(c.args, " "), l.Token) {
				t.Errorf("%s shows the token in its arguments", c.name)
			}
		}
	}
}

func TestANodeIsReadyByItsConditionOnly(t *testing.T) {
	for node, ready := range map[string]bool{
		`{"status":{"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True"}]}}`: true,
		`{"status":{"conditions":[{"type":"Ready","status":"False","message":"no network"}]}}`:                    false,
		`{"status":{}}`: false,
	} {
		if err := readyCondition([]byte(node)); (err == nil) != ready {
			t.Errorf("%s: got %v", node, err)
		}
	}
}

func TestShellFactsSurviveAnyValue(t *testing.T) {
	var out bytes.Buffer
	facts{Name: "a", RunDir: `/it's "here"`}.shell(&out)
	if want := `export LOOKBACK_RUN_DIR='/it'\''s "here"'` + "\n"; !strings.Contains(out.String(), want) {
		t.Errorf("no line %s in\n%s", want, out.String())
	}
}
