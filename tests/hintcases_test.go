package tests

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// hintCase is a program as a model writes it, and what it must be told when that goes wrong. A hint that is null in what is
// expected must not be there.
type hintCase struct {
	runCase
	Needs []string `json:"needs"` // modules that must be there
	Where string   `json:"where"` // "namespaces": only where there are some
}

func readHintCases(t *testing.T) []hintCase {
	t.Helper()
	b, err := os.ReadFile("cases/hints.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []hintCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

func TestHintCases(t *testing.T) {
	t.Parallel()
	cases := readHintCases(t)
	inEachWorld(t, "workers {\n idle 2\n }", func(t *testing.T, c *caddy) {
		for _, hc := range cases {
			if len(hc.Needs) == 0 && (hc.Where == "" || !c.o.noNamespaces) {
				t.Run(hc.ID, func(t *testing.T) { tryCase(t, c, hc.runCase) })
			}
		}
		c.expectNoScratch()
	})
}

// The same with the libraries whose words the hints know, over HTTP and over MCP: one program, one hint.
func TestHintCasesWithLibraries(t *testing.T) {
	t.Parallel()
	need(t, clientPython != "", needsClients)
	c := startCaddy(t, caddyOptions{directive: "python " + clientPython + "\nworkers {\n idle 2\n }"})
	for _, hc := range readHintCases(t) {
		t.Run(hc.ID, func(t *testing.T) {
			for _, module := range hc.Needs {
				err := exec.Command(clientPython, "-c", "import "+module).Run()
				need(t, err == nil, module+" is not installed: `make test` installs tests/requirements.txt, or set SANDBOX_TEST_PYTHON")
			}
			tryCase(t, c, hc.runCase)
			if len(hc.Needs) > 0 || slices.Contains([]string{"pip-bang", "fence-python", "net-urllib", "memory-jobs"}, hc.ID) {
				over, err := c.execute(t.Context(), hc.Request)
				if err != nil {
					t.Fatal(err)
				}
				if want, got := hintOf(t, over), hintOf(t, answer{raw: c.callTool(t, "execute_python", hc.Request).structured}); got != want {
					t.Errorf("over HTTP %q, over MCP %q", want, got)
				}
			}
		})
	}
}

// toolResult is what a call over MCP returns.
type toolResult struct {
	structured string
	text       string
	isError    bool
}

// callTool calls a tool with arguments that are encoded as JSON unless they are a string, without a session.
func (c *caddy) callTool(t testing.TB, tool string, arguments any) toolResult {
	t.Helper()
	raw, ok := arguments.(string)
	if !ok {
		b, err := json.Marshal(arguments)
		if err != nil {
			t.Fatal(err)
		}
		raw = string(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/mcp",
		strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`","arguments":`+raw+`}}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	a, err := c.do(req)
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Result struct {
			Structured json.RawMessage `json:"structuredContent"`
			IsError    bool            `json:"isError"`
			Content    []struct {
				Text string `json:"text"`
			} `json:"content"`
		} `json:"result"`
	}
	if err := json.Unmarshal([]byte(a.raw), &out); err != nil || len(out.Result.Content) == 0 {
		t.Fatalf("%d %s %v", a.code, a.raw, err)
	}
	return toolResult{string(out.Result.Structured), out.Result.Content[0].Text, out.Result.IsError}
}

// pip's own words are about the network, and it does not wait to try again.
func TestPipFailsAtOnce(t *testing.T) {
	t.Parallel()
	need(t, clientPython != "", needsClients)
	c := startCaddy(t, caddyOptions{directive: "python " + clientPython + "\nworkers {\n idle 1\n }"})
	a := c.run("import subprocess, sys\nsubprocess.call([sys.executable, '-m', 'pip', 'install', 'humanize'])")
	if n := strings.Count(a.Stderr, "Retrying (Retry("); n != 1 || !strings.Contains(a.Stderr, "Failed to establish a new connection") {
		t.Errorf("pip retried %d times: %s", n, a.Stderr)
	}
	if hint := hintOf(t, a); !strings.Contains(hint, `{"package": "humanize"}`) {
		t.Errorf("got the hint %q", hint)
	}
}
