package tests

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// installTool calls pip_install with a token for progress, unless that is "".
func (s *mcpSession) installTool(token string, args map[string]any) (*mcp.CallToolResult, error) {
	var req mcp.CallToolRequest
	req.Params.Name, req.Params.Arguments = "pip_install", args
	if token != "" {
		req.Params.Meta = &mcp.Meta{ProgressToken: token}
	}
	return s.CallTool(context.Background(), req)
}

// mustInstallTool returns the structured content, which the one text block must equal.
func (s *mcpSession) mustInstallTool(token string, args map[string]any) map[string]any {
	s.Helper()
	result, err := s.installTool(token, args)
	if err != nil || result.IsError || len(result.Content) != 1 {
		s.Fatalf("%s: %v: %+v %v", s.transport, args, result, err)
	}
	content, ok := result.StructuredContent.(map[string]any)
	text, _ := result.Content[0].(mcp.TextContent)
	var same map[string]any
	if err := json.Unmarshal([]byte(text.Text), &same); err != nil || !ok || !reflect.DeepEqual(content, same) {
		s.Errorf("%s: structured content %+v, text %q, %v", s.transport, result.StructuredContent, text.Text, err)
	}
	return content
}

// tools returns tools/list by name.
func (s *mcpSession) tools() map[string]mcp.Tool {
	s.Helper()
	list, err := s.ListTools(context.Background(), mcp.ListToolsRequest{})
	if err != nil {
		s.Fatal(err)
	}
	byName := map[string]mcp.Tool{}
	for _, tool := range list.Tools {
		byName[tool.Name] = tool
	}
	return byName
}

// The tool and the route are one operation, and over MCP an install says how it goes on.
func TestInstallMCP(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), oftenEnough)})
	for _, transport := range []string{"http", "sse", "modern"} {
		name := "sbx-" + transport
		below := "sbx-below-" + transport
		slow := twoModules(name, "1.0", below).File()
		slow.Delay = 700 * time.Millisecond // more than a note takes
		x.Add(index.Project{Name: name, Files: []index.File{slow}})
		x.AddWheels(twoModules(below, "2.0"))
		t.Run(transport, func(t *testing.T) {
			s := dialMCP(t, c, transport)
			if tool, ok := s.tools()["pip_install"]; !ok || tool.Description == "" || tool.InputSchema.Properties["package"] == nil || tool.InputSchema.Properties["version"] == nil ||
				tool.OutputSchema.Properties["installed_version"] == nil || !slices.Equal(tool.InputSchema.Required, []string{"package"}) {
				t.Errorf("pip_install is shown as %+v", tool)
			}

			var mu sync.Mutex
			var shares []float64
			var words []string
			s.OnNotification(func(n mcp.JSONRPCNotification) {
				mu.Lock()
				defer mu.Unlock()
				fields := n.Params.AdditionalFields
				if n.Method != "notifications/progress" {
					return
				}
				share, _ := fields["progress"].(float64)
				message, _ := fields["message"].(string)
				if fields["progressToken"] != "token-"+transport || fields["total"] != 1.0 {
					t.Errorf("a note with the fields %v", fields)
				}
				shares, words = append(shares, share), append(words, message)
			})
			out := s.mustInstallTool("token-"+transport, map[string]any{"package": name, "version": "latest"})
			if out["status"] != "installed" || out["success"] != true || out["installed_version"] != "1.0" || len(out["packages"].([]any)) != 2 {
				t.Errorf("%v", out)
			}
			func() {
				mu.Lock()
				defer mu.Unlock()
				for i := range shares {
					if i > 0 && shares[i] <= shares[i-1] || shares[i] <= 0 || shares[i] > 1 {
						t.Errorf("progress does not grow: %v", shares)
						break
					}
				}
				said := strings.Join(words, "\n")
				at := -1
				for _, phase := range []string{"resolving", "downloading", "unpacking", "warming"} {
					next := strings.Index(said, phase)
					if next <= at {
						t.Errorf("no note of %s in its place: %q", phase, words)
					}
					at = next
				}
			}()
			if got := s.print(has(strings.ReplaceAll(name, "-", "_")+" 1.0", strings.ReplaceAll(below, "-", "_")+".sub 2.0")); got != "right\n" {
				t.Errorf("after the install: %q", got)
			}
			if out := s.mustInstallTool("", map[string]any{"package": name}); out["status"] != "already_installed" || out["installed_version"] != "1.0" {
				t.Errorf("%v", out)
			}
			// The same over HTTP has the same fields.
			if a := c.in(t).install(name, ""); a.Status != "already_installed" || *a.Version != "1.0" {
				t.Errorf("over HTTP: %s", a.raw)
			}

			// What could not be installed is a result; what is no request for a package is an error with a sentence.
			if out := s.mustInstallTool("", map[string]any{"package": "os"}); out["status"] != "blocked" || out["success"] != false || out["installed_version"] != nil {
				t.Errorf("%v", out)
			}
			if out := s.mustInstallTool("", map[string]any{"package": "sbx-missing"}); out["status"] != "not_found" {
				t.Errorf("%v", out)
			}
			for _, r := range []struct {
				args map[string]any
				word string
			}{
				{map[string]any{"package": "-r /etc/passwd"}, "option"},
				{map[string]any{"package": "git+https://127.0.0.1/x"}, "URL"},
				{map[string]any{"package": name, "version": "newest"}, "version"},
				{map[string]any{"package": 5}, "string"},
				{map[string]any{"package": nil}, "missing"},
				{map[string]any{"version": "1.0"}, "missing"},
				{map[string]any{"package": name, "version": 1.0}, "string"},
				{map[string]any{"package": strings.Repeat("a", 1000)}, "128"},
			} {
				result, err := s.installTool("", r.args)
				if err != nil || !result.IsError || len(result.Content) != 1 {
					t.Errorf("%v: %+v %v", r.args, result, err)
					continue
				}
				text, _ := result.Content[0].(mcp.TextContent)
				if !strings.Contains(text.Text, r.word) || !strings.HasSuffix(text.Text, ".") || strings.ToUpper(text.Text[:1]) != text.Text[:1] {
					t.Errorf("%v: %q is no sentence with %q", r.args, text.Text, r.word)
				}
			}
		})
	}
}

// A client that cancels frees the installer, and nothing has changed.
func TestInstallMCPCancelled(t *testing.T) {
	t.Parallel()
	x := newIndex(t, index.Wheel{Name: "sbx-one", Version: "1.0"})
	slow := index.Wheel{Name: "sbx-slow", Version: "1.0"}.File()
	slow.Delay = time.Hour
	x.Add(index.Project{Name: "sbx-slow", Files: []index.File{slow}})
	c := startCaddy(t, caddyOptions{directive: installing(x.URL(), oftenEnough)})
	for _, transport := range []string{"sse", "http"} {
		s := dialMCP(t, c, transport)
		before := x.WheelDownloads()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = s.installTool("", map[string]any{"package": "sbx-slow"})
		}()
		eventually(t, 30*time.Second, "the wheel is asked for", func() bool { return x.WheelDownloads() > before })
		note := mcp.JSONRPCNotification{JSONRPC: "2.0"}
		note.Method = "notifications/cancelled"
		for id := range 6 {
			note.Params.AdditionalFields = map[string]any{"requestId": id}
			if err := s.GetTransport().SendNotification(t.Context(), note); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, wholeWithin, "the call over", func() bool {
			select {
			case <-done:
				return true
			default:
				return false
			}
		})
		c.noneIsLeft()
	}
	c.mustHave()
	c.mustInstall("sbx-one", "")
}

// packages off leaves neither tool nor route, and programs are told that there is none.
func TestInstallOff(t *testing.T) {
	t.Parallel()
	x := newIndex(t, index.Wheel{Name: "sbx-one", Version: "1.0"})
	c := startCaddy(t, caddyOptions{directive: installing(x.URL())})
	c.mustInstall("sbx-one", "")
	c.mustPrint(has("sbx_one 1.0"), "right\n")
	c.reload("packages off", "")
	for _, transport := range []string{"http", "sse", "modern"} {
		s := dialMCP(t, c, transport)
		tools := s.tools()
		if _, there := tools["pip_install"]; there || len(tools) != 1 {
			t.Errorf("%s shows %v", transport, tools)
		}
		if !strings.Contains(tools["execute_python"].Description, "no way to install packages") {
			t.Errorf("execute_python is described as %q", tools["execute_python"].Description)
		}
		if result, err := s.installTool("", map[string]any{"package": "sbx-one"}); err == nil && !result.IsError {
			t.Errorf("%s installs: %+v", transport, result)
		}
	}
	a, err := c.tryInstall(t.Context(), "sbx-one", "")
	if err != nil || a.code != 404 || a.raw != "no such page" {
		t.Errorf("POST /pip_install: %d %s %v", a.code, a.raw, err)
	}
	resp, err := http.Get(c.url + "/packages")
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("GET /packages: %v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	got := c.run("import sbx_one")
	if hint := hintOf(t, got); !strings.Contains(hint, "sbx_one") || !strings.Contains(hint, "does not install packages") {
		t.Errorf("the hint is %q: %s", hint, got.raw)
	}
	// The set was only out of sight.
	c.reload(installing(x.URL()), "")
	c.mustPrint(has("sbx_one 1.0"), "right\n")
}

func hintOf(t testing.TB, a answer) string {
	t.Helper()
	var out struct {
		Hint *string `json:"hint"`
	}
	if err := json.Unmarshal([]byte(a.raw), &out); err != nil {
		t.Fatal(err)
	}
	if out.Hint == nil {
		return ""
	}
	return *out.Hint
}

// A program that lacks a module is told which package to ask for.
func TestInstallHints(t *testing.T) {
	t.Parallel()
	x := newIndex(t, index.Wheel{Name: "sbx-one", Version: "1.0", Files: map[string]string{
		"sbx_one/__init__.py": "", "sbx_one/needs.py": "import yaml\n"}})
	// An interpreter that has none of them.
	python := venv(t, interpreterDir(t)+"/venv", nil)
	c := startCaddy(t, caddyOptions{directive: installingBy(python, x.URL(), "block scipy")})
	const install = `pip_install with {"package": `
	for _, r := range []struct {
		code string
		says []string // nil: no hint
	}{
		{"import cv2", []string{"cv2", install + `"opencv-python"}`, "run the code again"}},
		{"import PIL", []string{install + `"pillow"}`}},
		{"from PIL import Image", []string{install + `"pillow"}`}},
		{"import sklearn.linear_model", []string{install + `"scikit-learn"}`}},
		{"import yaml", []string{install + `"pyyaml"}`}},
		{"from bs4 import BeautifulSoup", []string{install + `"beautifulsoup4"}`}},
		{"import numpy as np\nprint(np)", []string{install + `"numpy"}`}},
		{"def f():\n import requests\nf()", []string{install + `"requests"}`}},
		{"try:\n import yaml\nexcept ImportError:\n import PIL", []string{install + `"pillow"}`}},
		{"import zz_unknown_thing", []string{"zz_unknown_thing", "pip_install", "If a package provides it"}},
		{"import scipy", []string{"scipy", "may not be installed", "blocklist"}},
		{"import sys; sys.exit(__import__('subprocess').run([sys.executable, '-c', 'import cv2']).returncode)", []string{`"opencv-python"`}},
		{"print('right')", nil},
		{"raise ValueError('No module named cv2')", nil},
		{"import json.nothing", nil},
		{"import os.nothing", nil},
		{"from json import nothing", nil},
		{"import xml.nothing", nil},
		{"import distutils_not_there.x, cv2", []string{"distutils_not_there"}},
		{"import sys; print(\"ModuleNotFoundError: No module named 'cv2'\", file=sys.stderr)", nil},
		{"import sys\ntry:\n import cv2\nexcept ImportError: print('right')", nil},
		{"x = 1/0", nil},
		{"import cv2 as", nil},
	} {
		a := c.run(r.code)
		hint := hintOf(t, a)
		if r.says == nil {
			if strings.Contains(a.raw, `"hint"`) {
				t.Errorf("%q has the hint %q", r.code, hint)
			}
			continue
		}
		for _, word := range r.says {
			if !strings.Contains(hint, word) {
				t.Errorf("%q: the hint has no %s: %q; stderr %q", r.code, word, hint, a.Stderr)
			}
		}
	}
	// Over MCP it is a part of the same answer.
	result, err := dialMCP(t, c, "http").call(t.Context(), map[string]any{"code": "import cv2"})
	if err != nil || result.IsError {
		t.Fatalf("%+v %v", result, err)
	}
	if content, _ := result.StructuredContent.(map[string]any); !strings.Contains(content["hint"].(string), "opencv-python") {
		t.Errorf("%+v", content)
	}
	// A module of an installed package that lacks another's.
	c.mustInstall("sbx-one", "")
	if hint := hintOf(t, c.run("import sbx_one.needs")); !strings.Contains(hint, `"pyyaml"`) {
		t.Errorf("hint %q", hint)
	}
}
