package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/caddy-python-sandbox/caddy-python-sandbox"

// mayImport is the direction of imports: what each package may import of this module, and whether of Caddy. Packages
// that are not listed may import nothing of either.
var mayImport = map[string]struct {
	own   []string
	caddy bool
}{
	"cmd/caddy":   {own: []string{"caddymodule"}, caddy: true},
	"caddymodule": {own: []string{"pool", "policy", "packages", "internal/mcphook"}, caddy: true},
	"pool":        {own: []string{"packages"}},
	// The test build of the product for the MCP conformance suite.
	"tests/conformance": {own: []string{"caddymodule", "internal/mcphook"}, caddy: true},
}

func TestImportsGoOneWay(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	list.Dir = ".."
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for packages := json.NewDecoder(bytes.NewReader(out)); ; seen++ {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		rule := mayImport[strings.TrimPrefix(p.ImportPath, modulePath+"/")]
		for _, path := range p.Imports {
			own, isOwn := strings.CutPrefix(path, modulePath+"/")
			if isOwn && !slices.Contains(rule.own, own) {
				t.Errorf("%s imports %s", p.ImportPath, path)
			}
			if strings.HasPrefix(path, "github.com/caddyserver/") && !rule.caddy {
				t.Errorf("%s imports %s", p.ImportPath, path)
			}
		}
	}
	if seen < 3 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

// The release build and the tests must be about the same Caddy.
func TestManifestNamesTheCaddyOfGoMod(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../xcaddy.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		CaddyVersion string `json:"caddy_version"`
		Modules      []string
		Replace      map[string]string
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2")
	list.Dir = ".."
	version, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(version)); manifest.CaddyVersion != got {
		t.Errorf("xcaddy.json says %s, go.mod %s", manifest.CaddyVersion, got)
	}
	if !slices.Contains(manifest.Modules, modulePath+"/caddymodule") || manifest.Replace[modulePath] != "." {
		t.Errorf("xcaddy.json does not build this checkout: %s", text)
	}
}
