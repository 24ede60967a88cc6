package caddymodule

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/metrics"
)

// adapted is what the shipped Caddyfile says.
type adapted struct {
	Admin   struct{ Listen string }
	Logging struct {
		Logs map[string]struct{ Level string }
	}
	Apps struct {
		HTTP struct {
			Servers map[string]struct {
				Listen []string
				Logs   any
				Routes []struct {
					Match  []map[string]any
					Handle []json.RawMessage
				}
			}
		}
	}
}

// adaptShipped reads the shipped Caddyfile in an environment. Tests that call it cannot be parallel.
func adaptShipped(t *testing.T, env map[string]string) (adapted, *Handler, []string) {
	t.Helper()
	for _, name := range []string{"SANDBOX_ADDRESS", "SANDBOX_HOST", "SANDBOX_PORT", "SANDBOX_PYTHON", "PYTHONPATH",
		"BLOCKED_PACKAGES", "MAX_EXECUTION_TIME", "MAX_MEMORY_MB", "LOG_LEVEL", "CADDY_ADMIN"} {
		t.Setenv(name, "") // so that it is put back
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	splitAddress(os.LookupEnv, os.Setenv)
	text, err := os.ReadFile("../Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	var a adapted
	if err := json.Unmarshal(config, &a); err != nil {
		t.Fatal(err)
	}
	h := new(Handler)
	var order []string
	for _, server := range a.Apps.HTTP.Servers {
		for _, route := range server.Routes {
			for _, raw := range route.Handle {
				var named struct{ Handler string }
				if err := json.Unmarshal(raw, &named); err != nil {
					t.Fatal(err)
				}
				order = append(order, named.Handler)
				if named.Handler != "python_sandbox" {
					continue
				}
				if len(route.Match) > 0 {
					t.Errorf("the sandbox answers only %v", route.Match)
				}
				if err := json.Unmarshal(raw, h); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return a, h, order
}

func TestShippedCaddyfile(t *testing.T) {
	a, h, order := adaptShipped(t, nil)
	if len(a.Apps.HTTP.Servers) != 1 {
		t.Fatalf("got %d servers", len(a.Apps.HTTP.Servers))
	}
	server := a.Apps.HTTP.Servers["srv0"]
	if !slices.Equal(server.Listen, []string{"127.0.0.1:8001"}) {
		t.Errorf("listens on %v", server.Listen)
	}
	if server.Logs != nil {
		t.Error("the access log is on, and shows the ids of MCP sessions")
	}
	if a.Admin.Listen != "localhost:2019" || a.Logging.Logs["default"].Level != "INFO" {
		t.Errorf("got admin %q, level %q", a.Admin.Listen, a.Logging.Logs["default"].Level)
	}
	if !slices.Equal(order, []string{"metrics", "python_sandbox", "static_response"}) {
		t.Errorf("got the order %v", order)
	}
	if err := h.Validate(); err != nil {
		t.Error(err)
	}
	// The values that the shipped Caddyfile sets are the module's defaults.
	cfg, _ := h.poolConfig().Normalize()
	standard, most := h.executeTimeouts()
	def := new(Handler)
	defCfg, _ := def.poolConfig().Normalize()
	defStandard, defMost := def.executeTimeouts()
	cfg.Preload, cfg.Logger, defCfg.Logger = nil, nil, nil
	got, _ := json.Marshal(cfg)
	want, _ := json.Marshal(defCfg)
	if !reflect.DeepEqual(h.Packages.withDefaults(), def.Packages.withDefaults()) {
		t.Errorf("got packages %+v", h.Packages)
	}
	if !bytes.Equal(got, want) || standard != defStandard || most != defMost || h.maxBody() != def.maxBody() {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestShippedCaddyfileFollowsTheEnvironment(t *testing.T) {
	a, h, _ := adaptShipped(t, map[string]string{
		"SANDBOX_ADDRESS": "[::1]:9001", "CADDY_ADMIN": "localhost:9002", "LOG_LEVEL": "DEBUG", "SANDBOX_PYTHON": "/opt/python",
		"PYTHONPATH": "/app:/my lib", "MAX_EXECUTION_TIME": "10", "MAX_MEMORY_MB": "100",
		"BLOCKED_PACKAGES": "torch, tensorflow jax",
	})
	if got := a.Apps.HTTP.Servers["srv0"].Listen; !slices.Equal(got, []string{"[::1]:9001"}) {
		t.Errorf("listens on %v", got)
	}
	if a.Admin.Listen != "localhost:9002" || a.Logging.Logs["default"].Level != "DEBUG" || h.Python != "/opt/python" {
		t.Errorf("got %+v %q", a, h.Python)
	}
	if !slices.Equal(h.PythonPath, []string{"/app", "/my lib"}) {
		t.Errorf("got python_path %q", h.PythonPath)
	}
	if !slices.Equal(h.Packages.Block, []string{"torch", "tensorflow", "jax"}) {
		t.Errorf("got packages block %q", h.Packages.Block)
	}
	if standard, most := h.executeTimeouts(); standard != 10*time.Second || most != 10*time.Second {
		t.Errorf("got timeouts %s %s", standard, most)
	}
	if h.Limits.Memory != 100<<20 {
		t.Errorf("got memory %d", h.Limits.Memory)
	}
}

// Every word of the grammar is either set or shown in a comment.
func TestShippedCaddyfileShowsEveryWord(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"python", "preload", "python_path", "workers", "idle", "max", "queue", "acquire_timeout", "templates", "shutdown_grace",
		"limits", "execute_timeout", "memory", "processes", "output", "output_kill", "scratch", "open_files", "request_body", "isolation", "mcp", "docs", "jupyter", "token", "packages",
		"index", "hosts", "block", "allow", "trust", "sdist", "max_download", "max_installed", "rate", "install_timeout", "data_dir"} {
		if !strings.Contains(string(text), "\t"+word+" ") && !strings.Contains(string(text), "# "+word+" ") {
			t.Errorf("%s is not shown", word)
		}
	}
	if formatted := caddyfile.Format(text); !bytes.Equal(formatted, text) {
		t.Error("caddy fmt would change it")
	}
}
