package pool

import (
	"context"
	"testing"
	"time"
)

// newTestPool starts a pool that the test ends.
func newTestPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	p, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func execute(t *testing.T, p *Pool, code string) Result {
	t.Helper()
	r, err := p.Execute(context.Background(), Request{Code: code, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestExecuteRunsCodeInAFreshProcess(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{})
	for range 3 {
		r := execute(t, p, "import json, sys\nprint('hi', hasattr(json, 'x'), file=sys.stdout)\njson.x = 1")
		if r.Stdout != "hi False\n" || r.Stderr != "" || r.Status != StatusOK {
			t.Fatalf("got %+v", r)
		}
	}
	r := execute(t, p, "import os\nprint(os.getpid(), os.getuid(), sorted(os.listdir('/')), os.listdir('/proc')[-3:], os.listdir('.'), open('/proc/self/status').read())\n1/0")
	t.Log(r.Stdout, r.Stderr, r.ExitCode, r.Status, r.Usage, r.ExecutionTime)
}
