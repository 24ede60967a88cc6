package operation

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// failingRunner is a pool that returns the same error to every request.
type failingRunner struct{ err error }

func (f failingRunner) Execute(_ context.Context, req pool.Request) (pool.Result, error) {
	return pool.Result{Stdout: req.Stdin, Status: pool.StatusOK}, f.err
}

func newOperation(runner runner, level zapcore.Level) (*Executions, *observer.ObservedLogs) {
	core, logs := observer.New(level)
	return &Executions{Pool: runner, DefaultTimeout: time.Second, MaxTimeout: 2 * time.Second, Log: zap.New(core)}, logs
}

func TestOneLinePerExecutionWithoutItsCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err     error
		message string
		level   zapcore.Level
		fields  []string
	}{
		{nil, "executed", zapcore.InfoLevel, []string{"id", "status", "exit_code", "duration", "queue_time", "code_bytes", "stdout_bytes", "stderr_bytes"}},
		{pool.ErrQueueFull, "not executed", zapcore.InfoLevel, []string{"id", "type", "code_bytes", "error"}},
		{context.Canceled, "not executed", zapcore.InfoLevel, []string{"id", "type"}},
		{errors.New("a bug"), "not executed", zapcore.ErrorLevel, []string{"id", "type", "error"}},
	} {
		op, logs := newOperation(failingRunner{c.err}, zapcore.InfoLevel)
		_, err := op.Execute(t.Context(), ExecuteInput{Code: "secret code", Stdin: "secret output"})
		if (err == nil) != (c.err == nil) {
			t.Fatalf("got %v", err)
		}
		entries := logs.All()
		if len(entries) != 1 || entries[0].Message != c.message || entries[0].Level != c.level {
			t.Fatalf("%v: got %+v", c.err, entries)
		}
		fields := entries[0].ContextMap()
		for _, name := range c.fields {
			if _, ok := fields[name]; !ok {
				t.Errorf("%v: %s is missing in %v", c.err, name, fields)
			}
		}
		for name, value := range fields {
			if text, ok := value.(string); ok && strings.Contains(text, "secret") {
				t.Errorf("%v: %s shows %q", c.err, name, text)
			}
		}
	}
	op, logs := newOperation(failingRunner{}, zapcore.DebugLevel)
	if _, err := op.Execute(t.Context(), ExecuteInput{Code: "secret code"}); err != nil {
		t.Fatal(err)
	}
	if logs.FilterField(zap.String("code", "secret code")).FilterLevelExact(zapcore.DebugLevel).Len() != 1 {
		t.Error("the code is not logged at debug level")
	}
}

func TestOperationChecksWhatMCPSends(t *testing.T) {
	t.Parallel()
	op, logs := newOperation(failingRunner{}, zapcore.DebugLevel)
	for _, timeout := range []float64{0, -1, 2.001, math.NaN(), math.Inf(1), math.Inf(-1)} {
		_, err := op.Execute(t.Context(), ExecuteInput{Timeout: &timeout})
		p, ok := errors.AsType[*edge.Problem](err)
		if !ok || p.Status != 422 || len(p.Errors) != 1 || p.Errors[0].Location != "body.timeout" ||
			!strings.HasSuffix(p.Errors[0].Message, "greater than 0 and at most 2 seconds") {
			t.Errorf("%v: got %v", timeout, err)
		}
	}
	for _, code := range []string{strings.Repeat("é", MaxCodeBytes/2+1), "\xff"} {
		_, err := op.Execute(t.Context(), ExecuteInput{Code: code})
		if p, ok := errors.AsType[*edge.Problem](err); !ok || p.Status != 422 || p.Errors[0].Location != "body.code" {
			t.Errorf("got %v", err)
		}
	}
	if logs.Len() != 0 {
		t.Errorf("what was refused before it is an execution is logged: %v", logs.All())
	}
}

// Every error of the pool's API has a row of its own, and those that go away with waiting tell the client when to retry.
func TestErrorTable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		kind   metrics.Kind
		retry  bool
	}{
		{pool.ErrQueueFull, 503, metrics.KindQueueFull, true},
		{pool.ErrAcquireTimeout, 503, metrics.KindAcquireTimeout, true},
		{pool.ErrClosed, 503, metrics.KindShuttingDown, true},
		{pool.ErrNotStarted, 503, metrics.KindNotStarted, true},
		{pool.ErrWorkerLost, 503, metrics.KindWorkerLost, true},
		{context.Canceled, 499, metrics.KindClientGone, false},
		{context.DeadlineExceeded, 499, metrics.KindClientGone, false},
		{errors.New("unknown"), 500, metrics.KindInternal, false},
		{edge.Invalid(edge.ProblemError{Location: "body.code", Message: "must be"}), 422, metrics.KindInvalid, false},
	} {
		p := edge.AsProblem(c.err)
		if p.Status != c.status || p.Kind != c.kind || (p.RetryAfter > 0) != c.retry || p.Detail == "" || p.Title == "" {
			t.Errorf("%v: got %+v", c.err, p)
		}
		if c.retry != strings.Contains(p.Detail, "try again") {
			t.Errorf("%v: got %q", c.err, p.Detail)
		}
	}
}

func TestHintsOnMemoryKnowTheExceptionsOfLibraries(t *testing.T) {
	t.Parallel()
	op, _ := newOperation(failingRunner{}, zapcore.InfoLevel)
	op.Memory = 512 << 20
	for line, want := range map[string]bool{
		"MemoryError": true, "MemoryError: out": true, "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 TiB for an array": true,
		"numpy.core._exceptions.MemoryError: Unable to allocate": true, "ValueError: MemoryError": false, "x MemoryError": false, "MemoryErrors": false, "": false,
	} {
		hint := op.hintOn(pool.Result{Status: pool.StatusError, Stderr: "Traceback (most recent call last):\n" + line + "\n"}, ExecuteInput{}, time.Second)
		if strings.Contains(hint, "512 MiB") != want {
			t.Errorf("%q: got the hint %q", line, hint)
		}
	}
}
