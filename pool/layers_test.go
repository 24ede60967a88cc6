package pool

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/skip"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// layered is an escape attempt of ../tests/cases, with the guarantee that it tries to break.
type layered struct {
	ID        string `json:"id"`
	Guarantee string `json:"guarantee"`
	Request   struct {
		Code string `json:"code"`
	} `json:"request"`
	Expect map[string]any `json:"expect"`
	Repeat int            `json:"repeat"`
}

// Without Landlock or seccomp, the guarantees that the table still calls held are held. It is not parallel, since fork bombs and floods of
// output would disturb other tests.
func TestGuaranteesHoldWithOneLayerLess(t *testing.T) {
	var cases []layered
	for _, name := range []string{"escape", "escape-more"} {
		text, err := os.ReadFile("../tests/cases/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var more []layered
		if err := json.Unmarshal(text, &more); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, more...)
	}
	whole := confine.ThisSystem()
	if whole.Landlock == 0 || !whole.Seccomp {
		skip.Without(t, "Landlock and seccomp")
	}
	for name, take := range map[string]func(*confine.System){
		"no Landlock": func(s *confine.System) { s.Landlock = 0 },
		"no seccomp":  func(s *confine.System) { s.Seccomp = false },
	} {
		t.Run(name, func(t *testing.T) {
			sys := whole
			take(&sys)
			python, err := testPython()
			if err != nil {
				t.Fatal(err)
			}
			p, err := newPool(t.Context(), Config{Python: python.Executable, Isolation: IsolationBestEffort, Logger: slog.New(slog.DiscardHandler)}, sys)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if p.plan.World != confine.WorldNamespaces {
				skip.Without(t, "namespaces")
			}
			tried := 0
			for _, c := range cases {
				held := slices.ContainsFunc(p.guarantees, func(g Guarantee) bool { return g.Name == c.Guarantee && len(g.Layers) > 0 })
				if !held || seccompAlone[c.ID] && !sys.Seccomp {
					continue
				}
				tried++
				for range max(1, c.Repeat) {
					r, err := p.Execute(t.Context(), Request{Code: c.Request.Code, Timeout: 30 * time.Second})
					if err != nil || strings.Contains(r.Stdout, "ESCAPED") || c.Expect["stdout"] == "BLOCKED\n" && r.Stdout != "BLOCKED\n" {
						t.Errorf("%s (%s): %s %q %.300q %v", c.ID, c.Guarantee, r.Status, r.Stdout, r.Stderr, err)
					}
				}
			}
			if tried < 20 {
				t.Errorf("only %d attempts", tried)
			}
		})
	}
}

// seccompAlone are attempts that only the seccomp filter refuses, although their success would break no guarantee.
var seccompAlone = map[string]bool{
	"keys-left-over": true, // it tries to make a key; the next run would not find it
}

// testPython returns the interpreter that python3 on PATH starts.
var testPython = sync.OnceValues(func() (process.Interpreter, error) { return process.FindInterpreter(context.Background(), "python3") })
