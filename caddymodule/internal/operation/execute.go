// Package operation has what every surface offers: execute, run sessions, install, list, report health; and the words that a model
// reads about it. It knows no protocol.
package operation

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation/hint"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// ExecuteInput is the input of an execution, over HTTP and MCP. The schema tags serve both. What depends on the configuration, such as the
// largest timeout, is added to the schema where HTTP and MCP declare the operation.
type ExecuteInput struct {
	Code string `json:"code" maxLength:"1048576" doc:"Python source, run as __main__ in a fresh process; up to 1 MiB." example:"print(\"Hello, World!\")"`
	// Timeout is in seconds; nil means the configured default.
	Timeout *float64 `json:"timeout,omitempty" nullable:"true" exclusiveMinimum:"0" doc:"Seconds the code may run, by the clock on the wall; fractions are allowed."`
	Stdin   string   `json:"stdin,omitempty" nullable:"true" doc:"What the code reads from standard input; without it, reads give end of file at once."`

	// Leased, if not nil, is called when a worker has been found. It must not block.
	Leased func() `json:"-"`
}

// ExecuteOutput is the result of an execution, over HTTP and MCP.
type ExecuteOutput struct {
	Stdout        string       `json:"stdout" doc:"What the code wrote to standard output; the middle is left out when it is long."`
	Stderr        string       `json:"stderr" doc:"What the code wrote to standard error, tracebacks included."`
	ExitCode      int          `json:"exit_code" doc:"0 when all went well; 1 after an uncaught exception; 124 on timeout; 128+N when ended by signal N."`
	ExecutionTime float64      `json:"execution_time" doc:"Seconds the code ran."`
	Success       bool         `json:"success" doc:"True when exit_code is 0 and status is ok."`
	Status        string       `json:"status" enum:"ok,error,timeout,memory_limit,output_limit,killed" doc:"How the run ended."`
	Truncated     bool         `json:"truncated" doc:"True when some output was left out."`
	Usage         ExecuteUsage `json:"usage" doc:"What the run cost."`
	Hint          string       `json:"hint,omitempty" doc:"What to do next, in a sentence or two: about a module that is missing, a limit that was met, a network that is not there, code that is no plain Python."`
}

// ExecuteUsage is what an execution cost.
type ExecuteUsage struct {
	CPUTime         float64 `json:"cpu_time" doc:"Seconds of processor time."`
	PeakMemoryBytes int64   `json:"peak_memory_bytes" doc:"The most memory the code held at once."`
	QueueTime       float64 `json:"queue_time" doc:"Seconds the request waited for a worker."`
}

// Executor is the operation that HTTP and MCP share. Errors are *edge.Problem. Safe for concurrent use.
type Executor interface {
	Execute(ctx context.Context, in ExecuteInput) (ExecuteOutput, error)
}

// runner is what an operation needs of a pool.
type runner interface {
	Execute(ctx context.Context, req pool.Request) (pool.Result, error)
}

// MaxCodeBytes bounds the source of one execution, in bytes.
const MaxCodeBytes = 1 << 20

// Executions runs executions on a pool. It is safe for concurrent use and stays valid as long as its pool.
type Executions struct {
	Pool runner
	// DefaultTimeout is used when the caller names none; MaxTimeout is the most a caller may ask for.
	DefaultTimeout, MaxTimeout time.Duration
	// Memory and OutputKill are the pool's limits, in bytes.
	Memory, OutputKill int64
	// Processes is how many processes and threads a run may have, for hints.
	Processes int
	// Packages says how programs get packages, in hints; nil says nothing of packages.
	Packages hint.Packages
	Log      *zap.Logger
}

// Execute validates the input, runs the code, and logs and counts the result. Every error is a *edge.Problem.
func (o *Executions) Execute(ctx context.Context, in ExecuteInput) (ExecuteOutput, error) {
	req, refused := o.request(in)
	if refused != nil {
		refused.Count()
		return ExecuteOutput{}, refused
	}
	result, unfenced, err := o.run(ctx, req)
	if err != nil {
		return ExecuteOutput{}, o.Failed(req.ID, in.Code, err)
	}
	o.Executed(Record{ID: req.ID, Code: in.Code, Result: result, StdoutBytes: len(result.Stdout), StderrBytes: len(result.Stderr)})
	out := outputOf(result)
	out.Hint = o.hintOn(result, in, req.Timeout)
	if unfenced {
		out.Hint = strings.TrimSuffix(hint.Unfenced+" "+out.Hint, " ")
	}
	return out, nil
}

// request converts the input for the pool, or returns the problem with it.
func (o *Executions) request(in ExecuteInput) (pool.Request, *edge.Problem) {
	if len(in.Code) > MaxCodeBytes {
		return pool.Request{}, edge.Invalid(edge.ProblemError{Location: "body.code", Message: CodeRule})
	}
	// The decoder of MCP requests is less strict than that of the HTTP API.
	if !utf8.ValidString(in.Code) {
		return pool.Request{}, edge.Invalid(edge.ProblemError{Location: "body.code", Message: "must be valid UTF-8"})
	}
	timeout := o.DefaultTimeout
	if in.Timeout != nil {
		asked := *in.Timeout
		if !(asked > 0 && asked <= o.MaxTimeout.Seconds()) { // written so that NaN is refused, too
			return pool.Request{}, edge.Invalid(edge.ProblemError{Location: "body.timeout", Message: TimeoutRule(o.MaxTimeout)})
		}
		timeout = max(time.Duration(asked*float64(time.Second)), 1)
	}
	req := pool.Request{
		ID:      NewID(),
		Code:    in.Code,
		Stdin:   in.Stdin,
		Timeout: timeout,
	}
	if in.Leased != nil {
		req.Leased = func(int) { in.Leased() }
	}
	return req, nil
}

// NewID returns a random id with which log lines about one execution can be found. It is not a secret.
func NewID() string {
	return strconv.FormatUint(rand.Uint64(), 36) //nolint:gosec // it guards nothing
}

// Record is what is logged and counted of an execution that has a result: a run, or a cell of a session.
type Record struct {
	ID, Code                 string
	Result                   pool.Result
	StdoutBytes, StderrBytes int
}

// Executed logs and counts an execution.
func (o *Executions) Executed(x Record) {
	metrics.Sandbox.Executed(x.Result)
	if c := o.Log.Check(zapcore.InfoLevel, "executed"); c != nil {
		c.Write(zap.String("id", x.ID),
			zap.String("status", string(x.Result.Status)),
			zap.Int("exit_code", x.Result.ExitCode),
			zap.Duration("duration", x.Result.ExecutionTime),
			zap.Duration("queue_time", x.Result.Usage.QueueTime),
			zap.Int("code_bytes", len(x.Code)),
			zap.Int("stdout_bytes", x.StdoutBytes),
			zap.Int("stderr_bytes", x.StderrBytes),
			zap.Int64("output_bytes", x.Result.OutputBytes))
	}
	if c := o.Log.Check(zapcore.DebugLevel, "executed code"); c != nil {
		c.Write(zap.String("id", x.ID), zap.String("code", x.Code))
	}
}

// Failed logs and counts an execution that has no result, and returns the problem for its caller.
func (o *Executions) Failed(id, code string, err error) *edge.Problem {
	p := edge.AsProblem(err)
	p.Count()
	level := zapcore.InfoLevel
	if p.Kind == metrics.KindInternal {
		level = zapcore.ErrorLevel
	}
	if c := o.Log.Check(level, "not executed"); c != nil {
		c.Write(zap.String("id", id), zap.String("type", string(p.Kind)), zap.Int("code_bytes", len(code)), zap.Error(err))
	}
	return p
}

// CodeRule says what the field code must be.
const CodeRule = "must be a string of Python source, at most 1 MiB (1048576 bytes)"

// TimeoutRule says what the field timeout must be, if most is the largest one.
func TimeoutRule(most time.Duration) string {
	return fmt.Sprintf("must be a number of seconds, greater than 0 and at most %s seconds", Seconds(most.Seconds()))
}

func outputOf(r pool.Result) ExecuteOutput {
	return ExecuteOutput{
		Stdout:        r.Stdout,
		Stderr:        r.Stderr,
		ExitCode:      r.ExitCode,
		ExecutionTime: toSeconds(r.ExecutionTime),
		Success:       r.Status == pool.StatusOK && r.ExitCode == 0,
		Status:        string(r.Status),
		Truncated:     r.Truncated,
		Usage: ExecuteUsage{
			CPUTime:         toSeconds(r.Usage.CPUTime),
			PeakMemoryBytes: r.Usage.PeakMemory,
			QueueTime:       toSeconds(r.Usage.QueueTime),
		},
	}
}

// toSeconds rounds to microseconds: more digits would be noise.
func toSeconds(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e6 }

var _ Executor = (*Executions)(nil)
