package tests

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// What the OpenAPI document says is what the server does, by Schemathesis' checks on 2,000 requests and more that it makes
// up: no 500, no answer that the document does not describe, nothing refused that it allows, nothing taken that it forbids.
func TestSchemathesis(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a minute")
	}
	need(t, clientPython != "", needsClients)
	program := filepath.Join(filepath.Dir(clientPython), "schemathesis")
	x := index.New()
	t.Cleanup(x.Close)
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), "rate 100000 1m") + "\nlimits {\nexecute_timeout 1s 2s\n}"})
	var requests atomic.Int64
	t.Run("operations", func(t *testing.T) {
		for _, run := range []struct {
			operation string
			cases     int
		}{
			{"execute_python", 1000},
			{"pip_install", 1000},
			{"list_packages", 20},
			{"health", 20},
		} {
			t.Run(run.operation, func(t *testing.T) {
				t.Parallel()
				arguments := []string{"run", c.url + "/openapi.json", "--checks", "all", "--max-response-time", "30", "--request-timeout", "60",
					"--include-operation-id", run.operation, "--max-examples", strconv.Itoa(run.cases), "--seed", "1", "--workers", "2",
					"--phases", "examples,coverage,fuzzing", "--no-color", "--suppress-health-check", "all"}
				cmd := exec.CommandContext(t.Context(), program, arguments...)
				cmd.Dir = t.TempDir() // it writes there
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("%v\n%s", err, tail(string(out), 4000))
				}
				if m := regexp.MustCompile(`(\d+) generated`).FindSubmatch(out); m != nil {
					n, _ := strconv.Atoi(string(m[1]))
					requests.Add(int64(n))
				}
			})
		}
	})
	t.Logf("%d requests", requests.Load())
	if n := requests.Load(); n < 2000 {
		t.Errorf("only %d requests were made up", n)
	}
	c.mustPrint("print(1)", "1\n")
}
