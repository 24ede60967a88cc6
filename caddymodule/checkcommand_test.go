package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// nested is a configuration with handlers in nested routes, and with JSON that only looks like one.
const nested = `{"apps": {"http": {"servers": {
	"b": {"routes": [{"handle": [{"handler": "subroute", "routes": [
		{"handle": [{"handler": "vars", "handler_of_ours": "python_sandbox"}, {"handler": "python_sandbox", "isolation": "none", "limits": {"memory": 1125899906842624}}]}]}]}]},
	"a": {"named_routes": {"x": {"handle": [{"isolation": "none", "limits": {"memory": 1125899906842624}, "handler": "python_sandbox"}]}},
		"routes": [{"handle": [{"handler": "python_sandbox"}], "terminal": true}, {"handle": [null, 1, "python_sandbox", []]}]}
}}}}`

func TestCheckFindsEveryHandler(t *testing.T) {
	t.Parallel()
	found, err := findHandlers([]byte(nested))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 {
		t.Fatalf("found %d", len(found))
	}
	if f := found[0]; f.handler.Isolation != "none" || f.handler.Limits.Memory != 1<<50 || !slices.Equal(f.where, []string{
		"apps/http/servers/b/routes/0/handle/0/routes/0/handle/1", "apps/http/servers/a/named_routes/x/handle/0"}) {
		t.Errorf("got %+v %q", f.handler.Limits, f.where)
	}
	if f := found[1]; f.handler.Isolation != "" || !slices.Equal(f.where, []string{"apps/http/servers/a/routes/0/handle/0"}) {
		t.Errorf("got %+v %q", f.handler.Limits, f.where)
	}
}

func TestCheckRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ config, want string }{
		{`{"handler": "python_sandbox", "isolaton": "none"}`, `unknown field "isolaton"`},
		{`{"apps": {"a": [{"handler": "python_sandbox", "limits": 1}]}}`, "the python_sandbox at apps/a/0: "},
		{`{"apps": `, "no valid JSON"},
		{`{"apps": {"x": tru}}`, "no valid JSON"},
	} {
		if found, err := findHandlers([]byte(c.config)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: found %v, %v", c.config, found, err)
		}
	}
	for _, none := range []string{"", "{}", "[]", "null", `"python_sandbox"`} {
		if found, err := findHandlers([]byte(none)); err != nil || len(found) > 0 {
			t.Errorf("%q: found %v, %v", none, found, err)
		}
	}
	empty := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(empty, []byte("http://:1 {\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, adapter, want string }{
		{"", "caddyfile", "--config, which is missing"},
		{empty, "", "has no python_sandbox: add the directive"},
		{empty + ".not", "", "no such file"},
	} {
		if _, err := handlersToCheck(c.file, c.adapter); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	if found, err := handlersToCheck("", ""); err != nil || len(found) != 1 || len(found[0].where) != 0 {
		t.Errorf("got %v, %v", found, err)
	}
}

// fakePool is a sandbox whose guarantees and program are made up.
type fakePool struct {
	stat   pool.Stat
	result pool.Result
	err    error
	closed bool
}

func (f *fakePool) Stat() pool.Stat { return f.stat }
func (f *fakePool) Close() error    { f.closed = true; return nil }
func (f *fakePool) Execute(context.Context, pool.Request) (pool.Result, error) {
	return f.result, f.err
}

func madeUp(gaps int, stdout string, err error) *fakePool {
	f := &fakePool{result: pool.Result{Status: pool.StatusOK, Stdout: stdout, Stderr: "it\nsaid"}, err: err}
	f.stat.Python = pool.Interpreter{Version: "3.12.1", Executable: "/usr/bin/python3.12"}
	for i := range 3 {
		g := pool.Guarantee{Name: "promise " + string(rune('a'+i)), Layers: []string{"one layer", "another"}}
		if i < gaps {
			g.Layers, g.Reason = []string{}, "the kernel has no layers"
		}
		f.stat.Guarantees = append(f.stat.Guarantees, g)
	}
	return f
}

func TestCheckSaysWhatHolds(t *testing.T) {
	t.Parallel()
	gap := errors.New("isolation strict: a guarantee cannot be held; set isolation best_effort")
	for _, c := range []struct {
		name                string
		args                []string
		pools               map[pool.Isolation]any // *fakePool or error
		held                bool
		says                []string
		refusal, wrong, end string
	}{
		{"all held", nil, map[pool.Isolation]any{"strict": madeUp(0, "42\n", nil)}, true,
			[]string{"python     3.12.1, /usr/bin/python3.12\n", "memory 512 MiB", "promise a  one layer, another\n"}, "", "", "Every guarantee is held: "},
		{"strict does not start", nil, map[pool.Isolation]any{"strict": gap, "best_effort": madeUp(2, "42\n", nil)}, false,
			[]string{"refused    " + gap.Error() + "\n", "Isolation strict does not start here.", "promise b  NOT HELD: the kernel has no layers\n", "promise c  one layer, another\n"},
			gap.Error(), "", "2 guarantees are not held: "},
		{"best effort", []string{"--isolation", "best_effort"}, map[pool.Isolation]any{"best_effort": madeUp(1, "42\n", nil)}, false,
			[]string{"isolation  best_effort\n", "promise a  NOT HELD: the kernel has no layers\n"}, "", "", "1 guarantee is not held: "},
		{"none", []string{"--isolation=none"}, map[pool.Isolation]any{"none": madeUp(3, "42\n", nil)}, false,
			[]string{"isolation  none\n"}, "", "", "User code is not confined"},
		{"strict alone does not start", nil, map[pool.Isolation]any{"strict": gap, "best_effort": madeUp(0, "42\n", nil)}, false,
			nil, gap.Error(), "", "Isolation strict does not start here: "},
		{"nothing starts", nil, map[pool.Isolation]any{"strict": errors.New("python is not there"), "best_effort": errors.New("python is not there")}, false,
			[]string{"error      python is not there\n"}, "", "python is not there", "The sandbox does not work here"},
		{"only best effort says why", nil, map[pool.Isolation]any{"strict": gap, "best_effort": errors.New("no memory")}, false,
			[]string{"refused    isolation strict", "error      no memory\n"}, gap.Error(), "no memory", "The sandbox does not work here"},
		{"no worker", nil, map[pool.Isolation]any{"strict": madeUp(0, "", pool.ErrAcquireTimeout)}, false,
			[]string{"promise a  one layer, another\n"}, "", "a program does not run in this sandbox: worker did not boot: mounting", "The sandbox does not work here"},
		{"wrong answer", nil, map[pool.Isolation]any{"strict": madeUp(0, "", nil)}, false, nil, "",
			`print(6 * 7) does not answer 42 in this sandbox: its status is ok, and it says "it\nsaid"`, "The sandbox does not work here"},
		{"bad words", []string{"--isolation", "lax"}, nil, false, nil, "", `isolation "lax" is unknown`, "The sandbox does not work here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			start := func(_ context.Context, cfg pool.Config) (checkedPool, error) {
				cfg.Logger.Warn("of no interest", "error", "none")
				switch p := c.pools[cfg.Isolation].(type) {
				case *fakePool:
					if p.err != nil {
						cfg.Logger.With("x", 1).Error("worker did not boot", slog.Int("in_a_row", 1), slog.Any("error", errors.New("mounting")))
					}
					return p, nil
				case error:
					return nil, p
				}
				t.Errorf("started with isolation %s", cfg.Isolation)
				return nil, errors.New("unexpected")
			}
			run := func(args ...string) (string, error) {
				var out bytes.Buffer
				cmd := newCheckCommand(start)
				cmd.SetArgs(append(slices.Clone(c.args), args...))
				cmd.SetOut(&out)
				cmd.SetErr(&out)
				err := cmd.Execute()
				return out.String(), err
			}
			text, err := run()
			if (err == nil) != c.held {
				t.Errorf("got %v", err)
			}
			for _, want := range append(c.says, "\n"+c.end) {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			text, err = run("--json")
			if (err == nil) != c.held {
				t.Errorf("got %v", err)
			}
			var report checkReport
			if err := json.Unmarshal([]byte(text), &report); err != nil || strings.Contains(text, "null") || len(report.Sandboxes) != 1 {
				t.Fatalf("got %v from %s", err, text)
			}
			s := report.Sandboxes[0]
			if report.Held != c.held || s.Refusal != c.refusal || !strings.HasPrefix(s.Error, c.wrong) || (s.Error == "") != (c.wrong == "") || !strings.HasPrefix(report.Advice, c.end) {
				t.Errorf("got %s", text)
			}
			for _, p := range c.pools {
				if p, ok := p.(*fakePool); ok && !p.closed {
					t.Error("a pool is left open")
				}
			}
		})
	}
}
