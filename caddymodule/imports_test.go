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

// caddyUse is what a package may import of Caddy.
type caddyUse int

const (
	nothing  caddyUse = iota
	httpOnly          // what handlers use of the HTTP app: variables, writers, encodings
	all
)

// mayImport is the direction of imports: what each package may import of this module, and of Caddy. Packages that are not
// listed may import nothing of either. A surface knows operations, never another surface.
var mayImport = map[string]struct {
	own   []string
	caddy caddyUse
}{
	"cmd/caddy": {own: []string{"caddymodule"}, caddy: all},
	"caddymodule": {own: append([]string{"policy", "packages", "pool", "pool/install", "caddymodule/internal/edge", "caddymodule/internal/metrics",
		"caddymodule/internal/operation"}, surfaces...), caddy: all},
	"caddymodule/internal/api":       {own: usesOperations, caddy: httpOnly},
	"caddymodule/internal/mcpserver": {own: append([]string{"internal/mcphook"}, usesOperations...)},
	"caddymodule/internal/jupyter":   {own: append([]string{"caddymodule/internal/operation/hint", "caddymodule/internal/operation/markdown"}, usesOperations...)},
	"caddymodule/internal/operation": {own: []string{"policy", "packages", "pool", "pool/install", "caddymodule/internal/edge", "caddymodule/internal/metrics",
		"caddymodule/internal/operation/hint", "caddymodule/internal/operation/markdown"}},
	"caddymodule/internal/edge":          {own: []string{"pool", "pool/install", "caddymodule/internal/metrics"}, caddy: httpOnly},
	"caddymodule/internal/edge/edgetest": {own: []string{"caddymodule/internal/edge"}},
	"caddymodule/internal/metrics":       {own: []string{"pool", "pool/install"}},
	"pool": {own: []string{"packages", "pool/install", "pool/python", "pool/internal/confine", "pool/internal/cgroup", "pool/internal/process",
		"pool/internal/procfs", "pool/internal/scratch"}},
	"pool/install":          {own: []string{"packages", "policy", "internal/pep440", "pool/internal/confine", "pool/internal/process", "pool/internal/scratch"}},
	"pool/internal/process": {own: []string{"pool/python", "pool/internal/confine"}},
	"pool/internal/cgroup":  {own: []string{"pool/internal/procfs"}},
	"packages":              {own: []string{"internal/pep440"}},
	"policy":                {own: []string{"internal/pep440"}},
	// The test build of the product for the MCP conformance suite.
	"tests/conformance": {own: []string{"caddymodule", "internal/mcphook"}, caddy: all},
}

var (
	surfaces       = []string{"caddymodule/internal/api", "caddymodule/internal/mcpserver", "caddymodule/internal/jupyter"}
	usesOperations = []string{"pool", "pool/install", "caddymodule/internal/operation", "caddymodule/internal/edge", "caddymodule/internal/metrics"}
)

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
			if !mayUse(rule.caddy, path) {
				t.Errorf("%s imports %s", p.ImportPath, path)
			}
		}
	}
	if seen < len(mayImport) {
		t.Errorf("only %d packages were looked at", seen)
	}
}

func mayUse(use caddyUse, path string) bool {
	rest, caddy := strings.CutPrefix(path, "github.com/caddyserver/")
	http := rest == "caddy/v2/modules/caddyhttp" || strings.HasPrefix(rest, "caddy/v2/modules/caddyhttp/")
	return !caddy || use == all || use == httpOnly && http
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
