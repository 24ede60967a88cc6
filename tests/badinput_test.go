package tests

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Whatever a caller sends, the answer is a problem of the contract, and the pool does not notice.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "workers {\n idle 2\n }\nlimits {\n request_body 1MiB\n }"})
	c.mustPrint("print(1)", "1\n")
	c.waitHealth(wholeWithin, "a whole pool", func(h health) bool { return h.whole(2) && h.Workers["booting"] == 0 })
	before := descendants(t, c.pid())

	type request struct {
		name, method, path, body string
		header                   map[string]string
		codes                    []int
	}
	post := func(name, body string, codes ...int) request {
		return request{name, http.MethodPost, "/execute", body, nil, codes}
	}
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	foreign := map[string]string{"Origin": "http://evil.example"}
	crossSite := map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}
	for _, r := range []request{
		post("empty body", "", 400),
		post("not JSON", "print(1)", 400),
		post("malformed", `{"code": "print(1)"`, 400),
		post("truncated in a string", `{"code": "print(`, 400),
		post("trailing data", `{"code":"print(1)"} x`, 400),
		post("not an object", `["print(1)"]`, 422),
		post("null", `null`, 422),
		post("missing code", `{}`, 422),
		post("missing code, with a timeout", `{"timeout": 1}`, 422),
		post("code is null", `{"code": null}`, 422),
		post("code is a number", `{"code": 1}`, 422),
		post("code is an object", `{"code": {"a": 1}}`, 422),
		post("stdin is a number", `{"code": "print(1)", "stdin": 1}`, 422),
		post("timeout 0", `{"code": "print(1)", "timeout": 0}`, 422),
		post("timeout -1", `{"code": "print(1)", "timeout": -1}`, 422),
		post("timeout 121", `{"code": "print(1)", "timeout": 121}`, 422),
		post("timeout 120.001", `{"code": "print(1)", "timeout": 120.001}`, 422),
		post("timeout x", `{"code": "print(1)", "timeout": "x"}`, 422),
		post("timeout true", `{"code": "print(1)", "timeout": true}`, 422),
		post("timeout NaN", `{"code": "print(1)", "timeout": NaN}`, 400),
		post("timeout Infinity", `{"code": "print(1)", "timeout": Infinity}`, 400),
		post("timeout 1e999", `{"code": "print(1)", "timeout": 1e999}`, 400, 422),
		post("body over the limit", `{"code": "`+strings.Repeat("#", 1<<20)+`"}`, 413),
		post("deep JSON", deep, 400, 422),
		post("deep JSON as code", `{"code": `+deep+`}`, 400, 422),
		post("deeper JSON", strings.Repeat(`{"a":`, 100_000), 400),
		post("lone surrogate", `{"code": "print('\ud800')"}`, 400, 422),
		post("bytes that are not UTF-8", "{\"code\": \"print('\xff')\"}", 400, 422),
		{"another origin", "POST", "/execute", `{"code":"print(1)"}`, foreign, []int{403}},
		{"another site", "POST", "/execute", `{"code":"print(1)"}`, crossSite, []int{403}},
		{"another origin, event stream", "GET", "/mcp/sse", "", foreign, []int{403}},
		{"another site, event stream", "GET", "/mcp/sse", "", crossSite, []int{403}},
		{"another origin, MCP", "POST", "/mcp", `{}`, foreign, []int{403}},
		{"MCP as plain text", "POST", "/mcp", `{}`, map[string]string{"Content-Type": "text/plain"}, []int{415}},
		{"MCP malformed", "POST", "/mcp", `{`, nil, []int{400}},
		{"MCP body over the limit", "POST", "/mcp", strings.Repeat(" ", 1<<20+1), nil, []int{413}},
		{"GET /execute", "GET", "/execute", "", nil, []int{405}},
		{"PUT /execute", "PUT", "/execute", `{"code":"print(1)"}`, nil, []int{405}},
		{"POST /health", "POST", "/health", `{}`, nil, []int{405}},
		{"PUT /mcp", "PUT", "/mcp", `{}`, nil, []int{405}},
		{"unknown path", "GET", "/nothing", "", nil, []int{404}},
		{"path below a known one", "POST", "/execute/more", `{"code":"print(1)"}`, nil, []int{404}},
	} {
		t.Run(r.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), r.method, c.url+r.path, strings.NewReader(r.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			for name, value := range r.header {
				req.Header.Set(name, value)
			}
			a, err := c.do(req)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(r.codes, a.code) {
				t.Fatalf("%d, not %v: %.300s", a.code, r.codes, a.raw)
			}
			switch {
			case a.code == 404: // the next handler's
			case a.code == 405 && a.header.Get("Allow") == "":
				t.Errorf("no Allow: %v", a.header)
			case r.path == "/execute" && (a.header.Get("Content-Type") != "application/problem+json" || a.Status != float64(a.code) || a.Detail == ""):
				t.Errorf("not a problem: %v %s", a.header, a.raw)
			}
			if strings.Contains(a.raw, "goroutine ") || strings.Contains(a.raw, ".go:") {
				t.Errorf("the answer shows our inside: %s", a.raw)
			}
		})
	}
	// JSON is JSON, whatever the header says: people paste curl -d.
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/execute", strings.NewReader(`{"code":"print(2)"}`))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// The refused requests have taken no worker.
	if after := descendants(t, c.pid()); !slices.Equal(before, after) {
		t.Errorf("processes were %v, are %v", before, after)
	}
	if a, err := c.do(req); err != nil || a.Stdout != "2\n" {
		t.Errorf("JSON as a form: %d %s %v", a.code, a.raw, err)
	}
	c.mustPrint("print(1)", "1\n")
}

// A configuration that cannot work is refused with a sentence that names the word and the remedy.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	dir := sharedDir(t)
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil { // a program
			t.Fatal(err)
		}
		return path
	}
	system := systemPython(t)
	// What an old Python would say of itself, whatever it is asked.
	old := script("old-python", `for last; do :; done; exec `+system+` -I -c '
import platform, sys, sysconfig
class V(tuple):
    major, minor, micro, releaselevel, serial = 3, 8, 10, "final", 0
sys.version_info = V((3, 8, 10, "final", 0))
sys.version = "3.8.10 (default, Jan  1 2022, 00:00:00) [GCC]"
platform.python_version = lambda: "3.8.10"
exec(sys.argv[1])' "$last"`)
	for _, bad := range []struct {
		name, directive string
		says            []string
	}{
		{"no such python", "python /nonexistent/python3", []string{"python", "/nonexistent/python3", "install"}},
		{"a directory", "python /", []string{"python", "set python"}},
		{"not a python", "python /bin/true", []string{"python", "/bin/true", "3.10"}},
		{"too old", "python " + old, []string{"python", "3.8.10", "3.10"}},
		{"dies at start", "python " + script("dying-python", "echo cannot find my feet >&2; exit 3"), []string{"python", "dying-python", "cannot find my feet", "3.10"}},
		{"preload of nothing", "preload no_such_module_at_all", []string{"preload", "no_such_module_at_all"}},
		{"preload that is no name", "preload ../x", []string{"preload", "../x"}},
		{"memory too small", "limits {\n memory 1KiB\n }", []string{"memory", "choose"}},
		{"memory is no size", "limits {\n memory much\n }", []string{"memory", "much"}},
		{"negative processes", "limits {\n processes -1\n }", []string{"processes", "-1"}},
		{"negative timeout", "limits {\n execute_timeout -1s\n }", []string{"execute_timeout"}},
		{"too many workers", "workers {\n idle 1000000\n }", []string{"idle", "choose"}},
		{"workers as a word", "workers {\n max many\n }", []string{"max", "many"}},
		{"unknown isolation", "isolation maybe", []string{"isolation", "maybe", "strict"}},
		{"unknown word", "pyhton /usr/bin/python3", []string{"pyhton", "Caddyfile:"}},
		{"unknown word in a block", "limits {\n ram 1GiB\n }", []string{"ram", "Caddyfile:"}},
		{"repeated word", "isolation none\n isolation none", []string{"isolation", "Caddyfile:"}},
		{"word without a value", "python", []string{"python", "Caddyfile:"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			c := prepare(t, caddyOptions{directive: bad.directive})
			for _, command := range []string{"validate", "run"} {
				out, code := c.outcome(command, "--config", c.configFile, "--adapter", "caddyfile")
				if code == 0 {
					t.Fatalf("caddy %s accepted it", command)
				}
				for _, word := range bad.says {
					if !strings.Contains(out, word) {
						t.Errorf("caddy %s does not say %q:\n%s", command, word, tail(out, 1000))
					}
				}
				if strings.Contains(out, "panic") || strings.Contains(out, "goroutine 1 ") {
					t.Errorf("caddy %s panicked:\n%s", command, tail(out, 4000))
				}
			}
		})
	}
}

// A queue that is full and a worker that does not come are 503s that say try again.
func TestBusyIsA503ThatSaysTryAgain(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "workers {\n idle 1\n max 1\n queue 1\n acquire_timeout 300ms\n }"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	held := make(chan struct{})
	go func() {
		defer close(held)
		_, _ = c.execute(ctx, map[string]any{"code": "import time; time.sleep(30)"})
	}()
	c.waitHealth(wholeWithin, "a worker at work", func(h health) bool { return h.Workers["leased"] == 1 })
	a, err := c.execute(t.Context(), map[string]any{"code": "print(1)"})
	if err != nil || a.code != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(strings.ToLower(a.Detail), "try again") {
		t.Errorf("%d %v %s %v", a.code, a.header, a.raw, err)
	}
	cancel()
	<-held
}
