package tests

import (
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// buildBackend is a build backend of the package's own (PEP 517, backend-path), so that nothing else is needed. It tells what a
// build could reach.
const buildBackend = `
import base64, hashlib, os, socket, zipfile

def build_wheel(directory, config=None, metadata=None):
    try:
        socket.create_connection(HOST, 1).close()
        reached = "connected"
    except OSError:
        reached = "no network"
    written = []
    for place in ("/", "/usr", "/etc", "/packages", os.path.dirname(os.__file__)):
        try:
            open(place + "/sbx-planted", "w").close()
            written.append(place)
        except OSError:
            pass
    found = repr({"reached": reached, "written": written, "uid is root": os.getuid() == 0, "env": sorted(k for k in os.environ if "SECRET" in k)})
    files = {"sbx_source.py": "__version__ = '1.0'\nFOUND = " + repr(found) + "\n",
             "sbx_source-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: sbx-source\nVersion: 1.0\n",
             "sbx_source-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: own\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    files["sbx_source-1.0.dist-info/RECORD"] = record + "sbx_source-1.0.dist-info/RECORD,,\n"
    with zipfile.ZipFile(directory + "/sbx_source-1.0-py3-none-any.whl", "w") as z:
        for name, text in files.items():
            z.writestr(name, text)
    return "sbx_source-1.0-py3-none-any.whl"
`

// With sdist allow a source distribution is built, by its own code, which reaches neither the network nor anything that lasts.
func TestInstallBuildsSource(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	host := `("` + strings.Replace(x.Host(), ":", `", `, 1) + ")" // the index itself, past the proxy
	x.Add(index.Project{Name: "sbx-source", Files: []index.File{index.Sdist{Name: "sbx-source", Version: "1.0", Files: map[string]string{
		"pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = \"own\"\nbackend-path = [\".\"]\n",
		"own.py":         strings.Replace(buildBackend, "HOST", host, 1),
	}}.File()}})
	x.Add(index.Project{Name: "sbx-broken", Files: []index.File{index.Sdist{Name: "sbx-broken", Version: "1.0", Files: map[string]string{
		"pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = \"own\"\nbackend-path = [\".\"]\n",
		"own.py":         "raise RuntimeError('this cannot be built')\n",
	}}.File()}})
	t.Run("denied", func(t *testing.T) {
		t.Parallel()
		c := startCaddy(t, caddyOptions{directive: installing(x.URL())})
		if code, body := c.postInstall(`{"package": "sbx-source"}`, "", ""); code != 200 || !strings.Contains(string(body), `"no_wheel"`) {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		c := startCaddy(t, caddyOptions{directive: installing(x.URL(), "sdist allow"), env: []string{"SECRET_OF_CADDY=1"}})
		if code, body := c.postInstall(`{"package": "sbx-broken"}`, "", ""); code != 200 || !strings.Contains(string(body), `"failed"`) || !strings.Contains(string(body), "this cannot be built") {
			t.Errorf("%d %s", code, body)
		}
		if code, body := c.postInstall(`{"package": "sbx-source"}`, "", ""); code != 200 || !strings.Contains(string(body), `"installed"`) {
			t.Fatalf("%d %s", code, body)
		}
		c.mustPrint("import sbx_source; print(sbx_source.FOUND)", "{'reached': 'no network', 'written': [], 'uid is root': False, 'env': []}\n")
	})
	t.Run("without namespaces", func(t *testing.T) {
		t.Parallel()
		c := startCaddy(t, caddyOptions{directive: installingBy(systemPython(t), x.URL(), "sdist allow"), credential: ordinaryUser(), noNamespaces: true})
		if code, body := c.postInstall(`{"package": "sbx-source"}`, "", ""); code != 200 || !strings.Contains(string(body), "needs namespaces") {
			t.Errorf("%d %s", code, body)
		}
	})
}
