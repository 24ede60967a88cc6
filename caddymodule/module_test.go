package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/skip"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, config, want string }{
		{"defaults", `{}`, ""},
		{"an impossible memory", `{"limits":{"memory":1024}}`, "limits memory is 1024 bytes: choose a value from"},
		{"a negative count", `{"workers":{"idle":-1}}`, "workers idle is -1: choose"},
		{"too few descriptors", `{"limits":{"open_files":3}}`, "limits open_files is 3: choose"},
		{"a small output_kill", `{"limits":{"output_kill":1024}}`, "limits output_kill is 1024 bytes: choose"},
		{"no grace at all", `{"workers":{"shutdown_grace":"-1s"}}`, "workers shutdown_grace is -1000 ms: choose"},
		{"a negative duration", `{"limits":{"execute_timeout":"-1s"}}`, "limits execute_timeout is -1s: choose"},
		{"an endless maximum", `{"limits":{"execute_timeout_max":"48h"}}`, "limits execute_timeout, its maximum, is 48h"},
		{"a negative body", `{"limits":{"request_body":-1}}`, "limits request_body is -1 bytes: choose"},
		{"a relative directory", `{"python_path":["lib"]}`, `python_path "lib" is not absolute`},
		{"hosts", `{"hosts":["sandbox","example.internal","192.0.2.1","2001:db8::1"]}`, ""},
		{"a host with a port", `{"hosts":["sandbox:8001"]}`, `hosts "sandbox:8001" is no host name: give the name alone`},
		{"a host with a scheme", `{"hosts":["http://sandbox"]}`, "is no host name"},
		{"any host", `{"hosts":["*"]}`, "is no host name"},
		{"an unknown isolation", `{"isolation":"loose"}`, `isolation "loose" is unknown: use strict`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := new(Handler)
			if err := caddy.StrictUnmarshalJSON([]byte(c.config), h); err != nil {
				t.Fatal(err)
			}
			err := h.Validate()
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestUnknownJSONFieldIsRefused(t *testing.T) {
	t.Parallel()
	if err := caddy.StrictUnmarshalJSON([]byte(`{"limits":{"timeout":3}}`), new(Handler)); err == nil {
		t.Error("accepted")
	}
}

func TestExecuteTimeouts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ standard, most, wantStandard, wantMost time.Duration }{
		{0, 0, 30 * time.Second, 120 * time.Second},
		{5 * time.Second, 0, 5 * time.Second, 120 * time.Second},
		{5 * time.Minute, 0, 5 * time.Minute, 5 * time.Minute},
		{0, 10 * time.Second, 10 * time.Second, 10 * time.Second},
		{30 * time.Second, 10 * time.Second, 10 * time.Second, 10 * time.Second},
		{30 * time.Second, time.Hour, 30 * time.Second, time.Hour},
	} {
		h := &Handler{Limits: Limits{ExecuteTimeout: caddy.Duration(c.standard), ExecuteTimeoutMax: caddy.Duration(c.most)}}
		if standard, most := h.executeTimeouts(); standard != c.wantStandard || most != c.wantMost {
			t.Errorf("%s %s: got %s %s, want %s %s", c.standard, c.most, standard, most, c.wantStandard, c.wantMost)
		}
	}
}

// provision does what Caddy does with a module of a configuration.
func provision(t *testing.T, config string) (*Handler, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	h := new(Handler)
	if err := json.Unmarshal([]byte(config), h); err != nil {
		t.Fatal(err)
	}
	if err := h.Provision(ctx); err != nil {
		if cleanErr := h.Cleanup(); cleanErr != nil {
			t.Error(cleanErr)
		}
		return h, err
	}
	return h, nil
}

func references(pool *caddy.UsagePool, key string) int {
	n, _ := pool.References(key)
	return n
}

// smallPool is a configuration that no other test has, so that tests share no pool.
func smallPool(name string) string {
	return `{"isolation":"best_effort","workers":{"idle":1,"max":1,"templates":1},"python_path":["/nonexistent/` + name + `"]`
}

func needPython(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		skip.Without(t, "python3 is not installed")
	}
}

// A reload provisions the new handler, then cleans the old one up. What did not change must survive that, and what no handler
// uses any more must end.
func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	t.Parallel()
	needPython(t)
	same := smallPool("same")
	first, err := provision(t, same+`}`)
	if err != nil {
		t.Fatal(err)
	}
	runtimeKey, frontKey := first.shares.runtime.key, first.shares.mcp.key
	// No handler here has served, so Cleanup returns only when what it ends has ended.
	expectReferences := func(front, runtime int) {
		t.Helper()
		if f, r := references(fronts, frontKey), references(runtimes, runtimeKey); f != front || r != runtime {
			t.Errorf("got %d references to the MCP front and %d to the pool, want %d and %d", f, r, front, runtime)
		}
	}
	if n := references(runtimes, runtimeKey); n != 2 {
		t.Errorf("got %d references to the pool, want 2: the handler's and its MCP front's", n)
	}

	// The same pool, but other settings: the MCP front is a new one.
	second, err := provision(t, same+`,"limits":{"request_body":4096}}`)
	if err != nil {
		t.Fatal(err)
	}
	if second.shares.runtime.key != runtimeKey {
		t.Error("a setting that shapes no process made a new pool")
	}
	if second.shares.mcp.key == frontKey {
		t.Error("a setting of the front was ignored")
	}
	if err := first.Cleanup(); err != nil {
		t.Fatal(err)
	}
	expectReferences(0, 2)

	// All settings are the same: pool and front are kept.
	third, err := provision(t, same+`,"limits":{"request_body":4096}}`)
	if err != nil {
		t.Fatal(err)
	}
	frontKey = second.shares.mcp.key
	if third.shares.mcp.key != frontKey {
		t.Error("the MCP front was not kept")
	}
	if err := second.Cleanup(); err != nil {
		t.Fatal(err)
	}
	expectReferences(1, 2)

	if err := third.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if err := third.Cleanup(); err != nil {
		t.Errorf("a second Cleanup: %v", err)
	}
	expectReferences(0, 0)
}

// Handlers and MCP fronts with the same settings of packages on one pool have one index, which ends with the last of them.
func TestInstallersAreShared(t *testing.T) {
	t.Parallel()
	needPython(t)
	base := strings.Replace(smallPool("installers"), `{"iso`, `{"packages":{"data_dir":"`+t.TempDir()+`"%s},"iso`, 1)
	var handlers []*Handler
	for _, more := range []string{"", `,"rate":10`, `,"trust":["x"]`} { // the second sets the default
		h, err := provision(t, fmt.Sprintf(base, more)+`,"limits":{"request_body":`+strconv.Itoa(4096+len(more))+`}}`)
		if err != nil {
			t.Fatal(err)
		}
		handlers = append(handlers, h)
	}
	first, second, other := handlers[0], handlers[1], handlers[2]
	if first.shares.installs.key == "" || first.shares.installs.key != second.shares.installs.key || first.shares.installs.key == other.shares.installs.key || first.shares.runtime.key != other.shares.runtime.key {
		t.Errorf("the keys are %q, %q and %q", first.shares.installs.key, second.shares.installs.key, other.shares.installs.key)
	}
	key, otherKey, dir := first.shares.installs.key, other.shares.installs.key, first.Packages.DataDir
	if n := references(installers, key); n != 4 {
		t.Errorf("got %d references, want 4: two handlers' and their fronts'", n)
	}
	if n := references(admitted, dir); n != 1 {
		t.Errorf("got %d references to the counts, want that of the pool", n)
	}
	if err := first.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if n, m := references(installers, key), references(installers, otherKey); n != 2 || m != 2 {
		t.Errorf("got %d and %d references, want the second's and the other's", n, m)
	}
	for _, h := range handlers[1:] {
		if err := h.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	if n, m, l := references(installers, key), references(installers, otherKey), references(admitted, dir); n+m+l != 0 {
		t.Errorf("got %d, %d and %d references, want none", n, m, l)
	}
}

// A Provision that fails must not drop the reference of a handler that has the same key.
func TestCleanupAfterFailedProvision(t *testing.T) {
	t.Parallel()
	needPython(t)
	if err := new(Handler).Cleanup(); err != nil {
		t.Errorf("Cleanup before Provision: %v", err)
	}
	for _, c := range []struct{ config, want string }{
		{`{"python":"/nonexistent/python3"}`, `python "/nonexistent/python3" was not found`},
		{smallPool("failing") + `,"preload":["no_such_module"]}`, "no_such_module"},
		{`{"limits":{"memory":1}}`, "limits memory"},
	} {
		h, err := provision(t, c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q in it", err, c.want)
		}
		if h.shares.runtime.key != "" || h.shares.mcp.key != "" {
			t.Errorf("%s: a key was remembered", c.config)
		}
	}
}

func TestMCPOff(t *testing.T) {
	t.Parallel()
	needPython(t)
	h, err := provision(t, smallPool("mcp-off")+`,"mcp":false}`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
	}()
	if h.shares.mcp.key != "" || h.routes["/mcp"] != nil || h.routes["/mcp/sse"] != nil {
		t.Error("MCP is on")
	}
	if h.routes["/execute"] == nil {
		t.Error("/execute is missing")
	}
}

// Two handlers of one configuration register the same collectors, and two configurations have a registry each.
func TestMetricsRegisterTwice(t *testing.T) {
	t.Parallel()
	for range 2 {
		registry := prometheus.NewRegistry()
		for range 2 {
			if err := metrics.Sandbox.Register(registry); err != nil {
				t.Fatal(err)
			}
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, family := range families {
			names = append(names, family.GetName())
			if family.GetHelp() == "" || len(family.GetMetric()) == 0 {
				t.Errorf("%s has no help or no series", family.GetName())
			}
		}
		for _, want := range []string{"sandbox_executions_total", "sandbox_execution_duration_seconds", "sandbox_errors_total",
			"sandbox_workers", "sandbox_worker_exits_total", "sandbox_queue_depth", "sandbox_acquire_duration_seconds",
			"sandbox_worker_memory_bytes"} {
			if !slices.Contains(names, want) {
				t.Errorf("%s is missing among %v", want, names)
			}
		}
	}
}

func TestSplitAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env, want map[string]string
	}{
		{nil, map[string]string{}},
		{map[string]string{"SANDBOX_ADDRESS": ""}, map[string]string{}},
		{map[string]string{"SANDBOX_ADDRESS": "127.0.0.1:9001"}, map[string]string{"SANDBOX_HOST": "127.0.0.1", "SANDBOX_PORT": "9001"}},
		{map[string]string{"SANDBOX_ADDRESS": ":9001"}, map[string]string{"SANDBOX_HOST": "", "SANDBOX_PORT": "9001"}},
		{map[string]string{"SANDBOX_ADDRESS": "[::1]:9001"}, map[string]string{"SANDBOX_HOST": "::1", "SANDBOX_PORT": "9001"}},
		{map[string]string{"SANDBOX_ADDRESS": "nonsense"}, map[string]string{"SANDBOX_HOST": "", "SANDBOX_PORT": "nonsense"}},
		{map[string]string{"SANDBOX_ADDRESS": "127.0.0.1:9001", "SANDBOX_PORT": "80"}, map[string]string{"SANDBOX_HOST": "127.0.0.1"}},
	} {
		got := map[string]string{}
		splitAddress(func(name string) (string, bool) {
			value, ok := c.env[name]
			return value, ok
		}, func(name, value string) error {
			got[name] = value
			return nil
		})
		if len(got) != len(c.want) {
			t.Errorf("%v: got %v, want %v", c.env, got, c.want)
		}
		for name, want := range c.want {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%v: got %v, want %v", c.env, got, c.want)
			}
		}
	}
}

// Counts of bodies are kept by their bounds: neither a handler with other bounds nor a refused configuration resets them.
func TestBodiesAreCountedByTheirBounds(t *testing.T) {
	t.Parallel()
	rt := &runtime{held: map[bodyBounds]*edge.Bodies{}}
	small, large := bodyBounds{one: 1 << 10, all: 1 << 20}, bodyBounds{one: 1 << 20, all: 1 << 30}
	first := rt.bodies(small)
	if other := rt.bodies(large); other == first || rt.bodies(small) != first || rt.bodies(large) != other {
		t.Error("the same bounds have two counts, or other bounds the same")
	}
}
