package tests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fences returns the code blocks of the README in one language, in their order.
func fences(t *testing.T, language string) []string {
	t.Helper()
	return fencesOf(t, "README.md", language)
}

// fencesOf does so for any document.
func fencesOf(t *testing.T, file, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../" + file)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no %s block", file, language)
	}
	return blocks
}

// What the README tells a person to type answers what it says.
func TestREADMECurl(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("curl")
	need(t, err == nil, "curl is not installed")
	c := startCaddy(t, caddyOptions{})
	var command string
	for _, block := range fences(t, "console") {
		for line := range strings.Lines(block) {
			if rest, ok := strings.CutPrefix(line, "$ curl "); ok && strings.Contains(rest, "/execute") {
				command = "curl " + strings.ReplaceAll(rest, "http://127.0.0.1:8001", c.url)
			}
		}
	}
	out, err := exec.Command("sh", "-c", command).Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	var got, said map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if err := json.Unmarshal([]byte(fences(t, "json")[0]), &said); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"stdout", "stderr", "exit_code", "success", "status", "truncated"} {
		if got[field] != said[field] {
			t.Errorf("%s is %v, and the README says %v", field, got[field], said[field])
		}
	}
	if len(got) != len(said) {
		t.Errorf("fields are %v, and the README says %v", got, said)
	}
}

func TestREADMECaddyfile(t *testing.T) {
	t.Parallel()
	c := prepare(t, caddyOptions{})
	file := filepath.Join(c.dir, "readme.Caddyfile")
	text := strings.ReplaceAll(fences(t, "caddyfile")[0], "/usr/bin/python3", systemPython(t))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { // read by the server
		t.Fatal(err)
	}
	if out, code := c.outcome("validate", "--config", file, "--adapter", "caddyfile"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// TestMCPClients runs mcpo with this configuration, but for the port.
func TestREADMEConfiguresMCPOAsTested(t *testing.T) {
	t.Parallel()
	var config struct {
		Servers map[string]struct{ Type, URL string } `json:"mcpServers"`
	}
	if err := json.Unmarshal([]byte(fences(t, "json")[1]), &config); err != nil {
		t.Fatal(err)
	}
	if s := config.Servers["sandbox"]; s.Type != "sse" || s.URL != "http://127.0.0.1:8001/mcp/sse" {
		t.Errorf("got %+v", config)
	}
	pins, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range fences(t, "console") {
		if pin := regexp.MustCompile(`mcpo==[0-9.]+`).FindString(block); pin != "" && !strings.Contains(string(pins), pin) {
			t.Errorf("the README installs %s, and the tests do not", pin)
		}
	}
}
