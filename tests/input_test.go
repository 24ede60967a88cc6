package tests

import (
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// What models and forms send for a field is taken over HTTP and over MCP alike, or refused over both in words that say what
// came.
func TestInputAsModelsSendIt(t *testing.T) {
	t.Parallel()
	x := index.New()
	t.Cleanup(x.Close)
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), "rate 1000 1m")})
	const execute, install = "execute_python", "pip_install"
	for _, r := range []struct {
		tool, arguments string
		says            string // of a refusal; "" for what is taken
	}{
		{execute, `{"code": "print(1)", "timeout": "30"}`, ""},
		{execute, `{"code": "print(1)", "timeout": " 10 "}`, ""},
		{execute, `{"code": "print(1)", "timeout": "1e1"}`, ""},
		{execute, `{"code": "print(1)", "timeout": "0.5"}`, ""},
		{execute, `{"code": "print(1)", "timeout": null}`, ""},
		{execute, `{"code": "print(1)", "stdin": null}`, ""},
		{execute, `{"code": "print(1)", "stdin": ""}`, ""},
		{execute, `{"code": "", "timeout": 1}`, ""},
		{execute, `{"code": "print(1)", "timeout": "30s"}`, "a string that holds no number"},
		{execute, `{"code": "print(1)", "timeout": ""}`, "a string that holds no number"},
		{execute, `{"code": "print(1)", "timeout": "ten"}`, "a string that holds no number"},
		{execute, `{"code": "print(1)", "timeout": "1,5"}`, "a string that holds no number"},
		{execute, `{"code": "print(1)", "timeout": "Infinity"}`, "a string that holds no number"},
		{execute, `{"code": "print(1)", "timeout": "0x1F"}`, "a string that holds no number"},
		{execute, `{"code": "print(1)", "timeout": "-5"}`, "0"},
		{execute, `{"code": "print(1)", "timeout": "0"}`, "0"},
		{execute, `{"code": "print(1)", "timeout": "121"}`, "up to 120|at most 120"},
		{execute, `{"code": "print(1)", "timeout": "1e999"}`, "up to 120|at most 120"},
		{execute, `{"code": "print(1)", "timeout": true}`, "true or false"},
		{execute, `{"code": "print(1)", "timeout": [30]}`, "an array"},
		{execute, `{"code": "print(1)", "timeout": {"seconds": 30}}`, "an object"},
		{execute, `{"code": ["x = 1", "print(x)"]}`, "an array: join its lines"},
		{execute, `{"code": {"python": "print(1)"}}`, "an object"},
		{execute, `{"code": 1}`, "a number"},
		{execute, `{"code": true}`, "true or false"},
		{execute, `{"code": "print(1)", "stdin": ["a", "b"]}`, "an array: join its lines"},
		{execute, `{"code": "print(1)", "stdin": 5}`, "a number"},
		{install, `{"package": "no-such-package-of-anybody", "version": null}`, ""},
		{install, `{"package": "no-such-package-of-anybody", "version": ""}`, ""},
		{install, `{"package": "requests", "version": 2.31}`, "a number: put it in quotes"},
		{install, `{"package": "requests", "version": 3}`, "a number: put it in quotes"},
		{install, `{"package": "requests", "version": ["2.31.0"]}`, "an array"},
		{install, `{"package": "requests", "version": true}`, "true or false"},
		{install, `{"package": ["requests", "rich"]}`, "an array: ask for each package"},
		{install, `{"package": 7}`, "a number"},
		{install, `{"package": {"name": "requests"}}`, "an object"},
	} {
		t.Run(r.tool+" "+r.arguments, func(t *testing.T) {
			t.Parallel()
			path := map[string]string{execute: "/execute", install: "/pip_install"}[r.tool]
			over, err := c.post(t.Context(), path, r.arguments)
			if err != nil {
				t.Fatal(err)
			}
			called := c.callTool(t, r.tool, r.arguments)
			if r.says == "" {
				if over.code != 200 || called.isError {
					t.Errorf("HTTP: %d %s; MCP: %s", over.code, over.raw, called.text)
				}
				return
			}
			if over.code != 422 || !called.isError {
				t.Fatalf("HTTP: %d %s; MCP: %v %s", over.code, over.raw, called.isError, called.text)
			}
			for surface, text := range map[string]string{"HTTP": over.raw, "MCP": called.text} {
				said := false
				for words := range strings.SplitSeq(r.says, "|") {
					said = said || strings.Contains(text, words)
				}
				if !said {
					t.Errorf("%s does not say %q: %s", surface, r.says, text)
				}
			}
		})
	}
	// The number in the string counts.
	a, err := c.execute(t.Context(), `{"code": "import time; time.sleep(60)", "timeout": "0.2"}`)
	if err != nil || a.Status != "timeout" {
		t.Errorf("%s %v", a.raw, err)
	}
	if called := c.callTool(t, execute, `{"code": "import time; time.sleep(60)", "timeout": "0.2"}`); !strings.Contains(called.structured, `"status":"timeout"`) {
		t.Errorf("%+v", called)
	}
}
