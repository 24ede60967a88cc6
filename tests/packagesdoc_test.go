package tests

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// install posts to /pip_install and returns the status and the body.
func (c *caddy) postInstall(body, user, password string) (int, []byte) {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), http.MethodPost, c.url+"/pip_install", strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	return resp.StatusCode, text
}

// What docs/packages.md says about who may install holds: installs ask for the password, executions do not.
func TestPackagesDocumentRestrictsInstalls(t *testing.T) {
	t.Parallel()
	c := prepare(t, caddyOptions{})
	text := fencesOf(t, "docs/packages.md", "caddyfile")[0]
	text = strings.Replace(text, "{\n", "{\n\tadmin "+c.admin+"\n\tpersist_config off\n\tauto_https off\n\tstorage file_system "+filepath.Join(c.o.home, "storage")+"\n", 1)
	text = strings.Replace(text, ":8001", c.addr[strings.LastIndex(c.addr, ":"):], 1)
	if err := os.WriteFile(c.configFile, []byte(text), 0o644); err != nil { // read by the server
		t.Fatal(err)
	}
	c.start()
	c.mustPrint("print(1)", "1\n")
	if code, body := c.postInstall(`{"package": "os"}`, "", ""); code != http.StatusUnauthorized {
		t.Errorf("without a password: %d %s", code, body)
	}
	if code, body := c.postInstall(`{"package": "os"}`, "admin", "change-me"); code != http.StatusOK || !strings.Contains(string(body), `"blocked"`) {
		t.Errorf("with the password: %d %s", code, body)
	}
}

// The answer of docs/packages.md is what the command of README.md and of that page gets, but for the index's own versions.
func TestPackagesDocumentAnswers(t *testing.T) {
	t.Parallel()
	server := index.New()
	t.Cleanup(server.Close)
	server.AddWheels(index.Wheel{Name: "humanize", Version: "4.17.0", Files: map[string]string{"humanize.py": ""}})
	c := startCaddy(t, caddyOptions{directive: "packages {\nindex " + server.URL() + "\n}\nworkers {\nidle 1\ntemplates 1\n}"})
	var said, got map[string]any
	if err := json.Unmarshal([]byte(fencesOf(t, "docs/packages.md", "json")[0]), &said); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"README.md", "docs/packages.md"} {
		_, command, ok := strings.Cut(strings.Join(fencesOf(t, file, "console"), ""), "/pip_install -d '")
		if !ok {
			t.Fatalf("%s installs nothing", file)
		}
		body, _, _ := strings.Cut(command, "'")
		code, text := c.postInstall(body, "", "")
		if err := json.Unmarshal(text, &got); err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d %s", file, code, text)
		}
		if file == "README.md" { // the first: later it is there already
			for name, value := range said {
				if name != "installation_time" && !jsonEqual(got[name], value) {
					t.Errorf("%s is %v, and docs/packages.md says %v", name, got[name], value)
				}
			}
		}
	}
}

func jsonEqual(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}
