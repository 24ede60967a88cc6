package packages

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

func TestPipConfigIsReadAsPipReadsIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, list string
		want       PipConfig
	}{
		{"nothing", "", PipConfig{}},
		{"what pip 23.2 prints", `:env:.config-file='/tmp/pc/pip.conf'
:env:.find-links='/opt/a /opt/b'
:env:.index-url=''
:env:.pre='1'
download.index-url='https://download.example/'
global.cert='/etc/ssl/certs/ca-certificates.crt'
global.index-url='https://user:p%40ss@index.example/simple'
global.timeout='20'
global.trusted-host='\na.example\nb.example:8443'
install.constraint='/etc/it\'s "c".txt'
install.extra-index-url='https://x.example/simple\nhttps://y.example/simple'
install.no-index='off'
`, PipConfig{
			IndexURL:       "https://user:p%40ss@index.example/simple",
			ExtraIndexURLs: []string{"https://x.example/simple", "https://y.example/simple"},
			FindLinks:      []string{"/opt/a", "/opt/b"},
			TrustedHosts:   []string{"a.example", "b.example:8443"},
			Cert:           "/etc/ssl/certs/ca-certificates.crt",
			Timeout:        20 * time.Second,
			Pre:            true,
			Constraints:    []string{"/etc/it's", `"c".txt`},
		}},
		{"precedence, whatever the order", "install.index-url='https://install.example/'\n:env:.index-url='https://env.example/'\nglobal.index-url='https://global.example/'\n" +
			"install.timeout='2.5'\nglobal.timeout='1'\nglobal.no-index='true'\ninstall.no-index='No'\n",
			PipConfig{IndexURL: "https://env.example/", Timeout: 2500 * time.Millisecond}},
		{"a later list replaces", "global.extra-index-url='https://a.example/'\n:env:.extra-index-url='https://b.example/'\n",
			PipConfig{ExtraIndexURLs: []string{"https://b.example/"}}},
		{"other names", "global.pypi-url='https://a.example/'\n:env:.default-timeout='180'\n", PipConfig{IndexURL: "https://a.example/", Timeout: 3 * time.Minute}},
		{"double quotes", `global.cert="/it's/cert.pem"` + "\r\n", PipConfig{Cert: "/it's/cert.pem"}},
		{"escapes", `global.cert='/a\\b\tc\x7f\xe9\u20ac\U0001f600\udcff\'"'` + "\n", PipConfig{Cert: "/a\\b\tc\x7fé€😀\xff'\""}},
		{"the rest", "global.proxy='user:pw@proxy.example:3128'\nglobal.client-cert='/c.pem'\nglobal.retries='0'\nglobal.prefer-binary='on'\n",
			PipConfig{Proxy: "user:pw@proxy.example:3128", ClientCert: "/c.pem", Retries: -1, PreferBinary: true}},
		{"what cannot be read", "WARNING: something\nglobal.cert=/x\nglobal.cert='\n'\nglobal.cert='a\nglobal.cert='a'b'\nglobal.cert='\\q'\nglobal.cert='\\x1'\n" +
			"global.cert='\\'\nglobal.cert='\\ud800'\nglobal.timeout='soon'\nglobal.timeout='-1'\nglobal.timeout='inf'\nglobal.retries='x'\nglobal.pre='maybe'\nglobal='x'\n", PipConfig{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := ParsePipConfig(c.list); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestPipConfigBecomesVariables(t *testing.T) {
	t.Parallel()
	got := PipConfig{DefaultIndexURL: "https://default.example/simple", FindLinks: []string{"/a b/c", "/d", "https://e.example/"}, Cert: "x.pem", Proxy: "http://proxy.example"}.Environment()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"PIP_CONFIG_FILE=/dev/null", "PIP_NO_INPUT=1", "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_DEFAULT_TIMEOUT=15", "PIP_RETRIES=2",
		"PIP_INDEX_URL=https://default.example/simple", "PIP_FIND_LINKS=file:///a%20b/c /d https://e.example/", "PIP_CERT=" + here + "/x.pem",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A real pip has the same configuration with the variables of Environment as with the file from which they were made.
func TestPipConfigGoesThroughARealPip(t *testing.T) {
	t.Parallel()
	pip := index.NewPip(t)
	file := filepath.Join(t.TempDir(), "pip.conf")
	if err := os.WriteFile(file, []byte(`[global]
index-url = https://user:p%40ss@index.example/simple
timeout = 20.5
retries = 0
cert = /it's "a" cert.pem
trusted-host =
    a.example
    b.example:8443
[install]
extra-index-url = https://x.example/simple
    https://y.example/simple
constraint = /etc/c.txt
find-links = /opt/wheels
pre = yes
prefer-binary = 1
client-cert = /ü.pem
`), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := pip.Run(t, []string{"PIP_CONFIG_FILE=" + file}, "config", "list")
	if err != nil {
		t.Fatalf("%v\n%s", err, list)
	}
	want := PipConfig{
		IndexURL: "https://user:p%40ss@index.example/simple", ExtraIndexURLs: []string{"https://x.example/simple", "https://y.example/simple"},
		FindLinks: []string{"/opt/wheels"}, TrustedHosts: []string{"a.example", "b.example:8443"}, Cert: `/it's "a" cert.pem`, ClientCert: "/ü.pem",
		Timeout: 20500 * time.Millisecond, Retries: -1, Pre: true, PreferBinary: true, Constraints: []string{"/etc/c.txt"},
	}
	if got := ParsePipConfig(list); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\n%s", got, want, list)
	}
	again, err := pip.Run(t, want.Environment(), "config", "list")
	if err != nil {
		t.Fatalf("%v\n%s", err, again)
	}
	if got := ParsePipConfig(again); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\n%s", got, want, again)
	}
	if strings.Contains(again, "global.") {
		t.Errorf("there are settings beside the variables:\n%s", again)
	}
}
