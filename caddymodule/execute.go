package caddymodule

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// executeInput is what a caller of the operation "execute" sends, over HTTP and over MCP alike. The schema tags serve
// both surfaces; what depends on the configuration is set where the operation is declared.
type executeInput struct {
	Code string `json:"code" maxLength:"1048576" doc:"Python source, run as __main__ in a fresh process; up to 1 MiB." example:"print(\"Hello, World!\")"`
	// Timeout is in seconds; nil means the configured default.
	Timeout *float64 `json:"timeout,omitempty" nullable:"true" exclusiveMinimum:"0" doc:"Seconds the code may run, by the clock on the wall; fractions are allowed."`
	Stdin   string   `json:"stdin,omitempty" nullable:"true" doc:"What the code reads from standard input; without it, reads give end of file at once."`

	leased func() // called when a worker has been found; nil for nobody who wants to know
}

// executeOutput is the answer, over HTTP and over MCP alike.
type executeOutput struct {
	Stdout        string       `json:"stdout" doc:"What the code wrote to standard output; the middle is left out when it is long."`
	Stderr        string       `json:"stderr" doc:"What the code wrote to standard error, tracebacks included."`
	ExitCode      int          `json:"exit_code" doc:"0 when all went well; 1 after an uncaught exception; 124 on timeout; 128+N when ended by signal N."`
	ExecutionTime float64      `json:"execution_time" doc:"Seconds the code ran."`
	Success       bool         `json:"success" doc:"True when exit_code is 0 and status is ok."`
	Status        string       `json:"status" enum:"ok,error,timeout,memory_limit,output_limit,killed" doc:"How the run ended."`
	Truncated     bool         `json:"truncated" doc:"True when some output was left out."`
	Usage         executeUsage `json:"usage" doc:"What the run cost."`
	Hint          string       `json:"hint,omitempty" doc:"What to do about a module that is missing, or a limit that was met."`
}

type executeUsage struct {
	CPUTime         float64 `json:"cpu_time" doc:"Seconds of processor time."`
	PeakMemoryBytes int64   `json:"peak_memory_bytes" doc:"The most memory the code held at once."`
	QueueTime       float64 `json:"queue_time" doc:"Seconds the request waited for a worker."`
}

// executor is the operation that both surfaces enter. Its error is a *problem when the caller can act on it.
type executor interface {
	execute(ctx context.Context, in executeInput) (executeOutput, error)
}

// runner is what an operation needs of a pool.
type runner interface {
	Execute(ctx context.Context, req pool.Request) (pool.Result, error)
}

// maxCodeBytes bounds the source of one execution.
const maxCodeBytes = 1 << 20

// operation is the executor on a pool. It is safe for concurrent use and stays valid as long as its pool.
type operation struct {
	pool runner
	// defaultTimeout is used when the caller names none; maxTimeout is the most a caller may ask for.
	defaultTimeout, maxTimeout time.Duration
	// memory and outputKill are the pool's limits, in bytes.
	memory, outputKill int64
	// hint says what to do about a module that is missing, "" for nothing; nil gives no hints.
	hint func(module string) string
	log  *zap.Logger
}

// execute checks in, runs it and tells logs and metrics. Every error is a *problem.
func (o *operation) execute(ctx context.Context, in executeInput) (executeOutput, error) {
	req, refused := o.request(in)
	if refused != nil {
		refused.count()
		return executeOutput{}, refused
	}
	result, err := o.pool.Execute(ctx, req)
	if err != nil {
		return executeOutput{}, o.failed(req.ID, in.Code, err)
	}
	o.executed(execution{id: req.ID, code: in.Code, result: result, stdoutBytes: len(result.Stdout), stderrBytes: len(result.Stderr)})
	out := outputOf(result)
	out.Hint = o.hintOn(result, req.Timeout)
	return out, nil
}

// request turns in into what the pool takes, or says why not.
func (o *operation) request(in executeInput) (pool.Request, *problem) {
	if len(in.Code) > maxCodeBytes {
		return pool.Request{}, invalid(problemError{"body.code", codeRule})
	}
	// Over MCP text comes from a decoder that is less strict than ours.
	if !utf8.ValidString(in.Code) {
		return pool.Request{}, invalid(problemError{"body.code", "must be valid UTF-8"})
	}
	timeout := o.defaultTimeout
	if in.Timeout != nil {
		asked := *in.Timeout
		if !(asked > 0 && asked <= o.maxTimeout.Seconds()) { // the form that NaN fails too
			return pool.Request{}, invalid(problemError{"body.timeout", timeoutRule(o.maxTimeout)})
		}
		timeout = max(time.Duration(asked*float64(time.Second)), 1)
	}
	req := pool.Request{
		ID:      newExecutionID(),
		Code:    in.Code,
		Stdin:   in.Stdin,
		Timeout: timeout,
	}
	if in.leased != nil {
		req.Leased = func(int) { in.leased() }
	}
	return req, nil
}

// newExecutionID names a line in a log.
func newExecutionID() string {
	return strconv.FormatUint(rand.Uint64(), 36) //nolint:gosec // it guards nothing
}

// execution is what logs and metrics hear of one that has a result, be it a run or a cell of a session.
type execution struct {
	id, code                 string
	result                   pool.Result
	stdoutBytes, stderrBytes int
}

// executed tells logs and metrics of an execution.
func (o *operation) executed(x execution) {
	sandboxMetrics.executed(x.result)
	if c := o.log.Check(zapcore.InfoLevel, "executed"); c != nil {
		c.Write(zap.String("id", x.id),
			zap.String("status", string(x.result.Status)),
			zap.Int("exit_code", x.result.ExitCode),
			zap.Duration("duration", x.result.ExecutionTime),
			zap.Duration("queue_time", x.result.Usage.QueueTime),
			zap.Int("code_bytes", len(x.code)),
			zap.Int("stdout_bytes", x.stdoutBytes),
			zap.Int("stderr_bytes", x.stderrBytes),
			zap.Int64("output_bytes", x.result.OutputBytes))
	}
	if c := o.log.Check(zapcore.DebugLevel, "executed code"); c != nil {
		c.Write(zap.String("id", x.id), zap.String("code", x.code))
	}
}

// failed tells logs and metrics of an execution that has no result, and returns what that is to its caller.
func (o *operation) failed(id, code string, err error) *problem {
	p := asProblem(err)
	p.count()
	level := zapcore.InfoLevel
	if p.kind == kindInternal {
		level = zapcore.ErrorLevel
	}
	if c := o.log.Check(level, "not executed"); c != nil {
		c.Write(zap.String("id", id), zap.String("type", string(p.kind)), zap.Int("code_bytes", len(code)), zap.Error(err))
	}
	return p
}

const codeRule = "must be a string of Python source, at most 1 MiB (1048576 bytes)"

func timeoutRule(most time.Duration) string {
	return fmt.Sprintf("must be a number of seconds, greater than 0 and at most %s seconds", seconds(most.Seconds()))
}

func outputOf(r pool.Result) executeOutput {
	return executeOutput{
		Stdout:        r.Stdout,
		Stderr:        r.Stderr,
		ExitCode:      r.ExitCode,
		ExecutionTime: toSeconds(r.ExecutionTime),
		Success:       r.Status == pool.StatusOK && r.ExitCode == 0,
		Status:        string(r.Status),
		Truncated:     r.Truncated,
		Usage: executeUsage{
			CPUTime:         toSeconds(r.Usage.CPUTime),
			PeakMemoryBytes: r.Usage.PeakMemory,
			QueueTime:       toSeconds(r.Usage.QueueTime),
		},
	}
}

// toSeconds rounds to microseconds: more digits would be noise.
func toSeconds(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e6 }

var _ executor = (*operation)(nil)
