package tests

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each example prints what its program does.
func TestExamples(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "workers {\nidle 2\ntemplates 1\n}"})
	found, err := filepath.Glob("../examples/*")
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	for _, file := range found {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			var cmd *exec.Cmd
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			switch filepath.Ext(file) {
			case ".sh":
				_, err := exec.LookPath("curl")
				need(t, err == nil, "curl is not installed")
				cmd = exec.CommandContext(ctx, "sh", file, c.url)
			case ".py":
				need(t, clientPython != "", needsClients)
				cmd = exec.CommandContext(ctx, clientPython, file, c.url+"/mcp")
			case ".mjs":
				needNodeClients(t)
				dir, _ := nodeClients()
				script, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				// A module finds others only below its own directory.
				copied := filepath.Join(dir, filepath.Base(file))
				if err := os.WriteFile(copied, script, 0o600); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = os.Remove(copied) })
				cmd = node(ctx, t.TempDir(), copied, c.url+"/mcp")
			default:
				t.Fatalf("no test knows how to run %s", file)
			}
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != "45\n" {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// The configurations of docs/clients.md are JSON that names addresses which the sandbox has, and each example is mentioned.
func TestClientsDocument(t *testing.T) {
	t.Parallel()
	blocks := fencesOf(t, "docs/clients.md", "json")
	for _, block := range blocks {
		var anything any
		if err := json.Unmarshal([]byte(block), &anything); err != nil {
			t.Errorf("%v: %s", err, block)
		}
		for _, word := range strings.FieldsFunc(block, func(r rune) bool { return strings.ContainsRune(`", []{}`, r) }) {
			if path, ok := strings.CutPrefix(word, "http://127.0.0.1:8001"); ok && path != "/mcp" && path != "/mcp/sse" {
				t.Errorf("%s is no address of the sandbox", word)
			}
		}
	}
	text, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob("../examples/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		if !strings.Contains(string(text), "examples/"+filepath.Base(file)) {
			t.Errorf("docs/clients.md does not mention examples/%s", filepath.Base(file))
		}
	}
}
