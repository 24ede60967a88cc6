package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
	"go.uber.org/zap"
)

// executeOutputSchema describes executeOutput to MCP clients; a test holds the two together. More fields may come.
const executeOutputSchema = `{
  "type": "object",
  "properties": {
    "stdout": {"type": "string", "description": "What the code wrote to standard output; the middle is left out when it is long."},
    "stderr": {"type": "string", "description": "What the code wrote to standard error, tracebacks included."},
    "exit_code": {"type": "integer", "description": "0 when all went well; 1 after an uncaught exception; 124 on timeout; 128+N when ended by signal N."},
    "execution_time": {"type": "number", "description": "Seconds the code ran."},
    "success": {"type": "boolean", "description": "True when the exit code is 0 and the status is ok."},
    "status": {"type": "string", "enum": ["ok", "error", "timeout", "memory_limit", "output_limit", "killed"], "description": "How the run ended."},
    "truncated": {"type": "boolean", "description": "True when some output was left out."},
    "usage": {
      "type": "object",
      "properties": {
        "cpu_time": {"type": "number", "description": "Seconds of processor time."},
        "peak_memory_bytes": {"type": "integer", "description": "The most memory the code held at once."},
        "queue_time": {"type": "number", "description": "Seconds the call waited for a free worker."}
      },
      "required": ["cpu_time", "peak_memory_bytes", "queue_time"]
    }
  },
  "required": ["stdout", "stderr", "exit_code", "execution_time", "success", "status", "truncated", "usage"]
}`

// mcpTool is execute_python.
type mcpTool struct {
	ex       executor
	sessions *mcpSessions
	o        mcpOptions

	mu      sync.Mutex
	running int
	closing bool
	idle    chan struct{} // closed when closing and nothing runs
}

func newMCPTool(ex executor, sessions *mcpSessions, o mcpOptions) *mcpTool {
	return &mcpTool{ex: ex, sessions: sessions, o: o, idle: make(chan struct{})}
}

// definition is what tools/list shows. Ranges and choices are said in words as well, since mcpo and kin drop the
// keywords of the schema.
func (t *mcpTool) definition() mcp.Tool {
	standard, most := t.o.DefaultTimeout.Seconds(), t.o.MaxTimeout.Seconds()
	return mcp.NewTool("execute_python",
		mcp.WithToolTitle("Execute Python"),
		mcp.WithDescription("Run Python source as a script in a fresh, isolated process and return its output. "+
			"Print what you want to see: the value of the last expression is not shown. "+
			"Nothing is kept from one call to the next: no variables, imports or files. There is no network. "+
			"Returns stdout, stderr, exit_code, status and timings; an exception in the code is a normal result with its "+
			"traceback in stderr."),
		mcp.WithString("code", mcp.Required(), mcp.Title("Code"), mcp.MaxLength(maxCodeBytes),
			mcp.Description("Python source, run as __main__; up to 1 MiB.")),
		mcp.WithNumber("timeout", mcp.Title("Timeout"), mcp.DefaultNumber(standard), mcp.Max(most), moreThan(0),
			mcp.Description(fmt.Sprintf("Seconds the code may run, more than 0 and up to %s; fractions are allowed. Default %s.",
				seconds(most), seconds(standard)))),
		mcp.WithString("stdin", mcp.Title("Standard input"), mcp.DefaultString(""),
			mcp.Description("Text that the code reads from standard input, for input() and sys.stdin. Default empty.")),
		mcp.WithRawOutputSchema(json.RawMessage(executeOutputSchema)),
		mcp.WithReadOnlyHintAnnotation(false),
		mcp.WithDestructiveHintAnnotation(false), // what the code writes is gone with its process
		mcp.WithIdempotentHintAnnotation(false),
		mcp.WithOpenWorldHintAnnotation(false))
}

func moreThan(n float64) mcp.PropertyOption {
	return func(schema map[string]any) { schema["exclusiveMinimum"] = n }
}

// call runs the tool. It never returns an error: that would reach the client as a protocol failure with our words in
// it, where a result that is marked as an error reaches the model.
func (t *mcpTool) call(ctx context.Context, req mcp.CallToolRequest) (result *mcp.CallToolResult, _ error) {
	defer func() {
		if r := recover(); r != nil {
			t.o.Logger.Error("mcp call panicked", zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
			result = mcp.NewToolResultError("The sandbox failed on its side; the code is not at fault. Try again.")
		}
	}()
	in, fault := t.arguments(req.Params.RawArguments)
	if fault != "" {
		return mcp.NewToolResultError(fault), nil
	}
	if fault = t.begin(); fault != "" {
		return mcp.NewToolResultError(fault), nil
	}
	defer t.end()

	ctx, release := t.tie(ctx)
	defer release()
	out, err := t.ex.execute(ctx, in)
	if err != nil {
		return mcp.NewToolResultError(t.sentence(ctx, err)), nil
	}
	text, err := encode(out)
	if err != nil {
		t.o.Logger.Error("encoding an mcp result", zap.Error(err))
		return mcp.NewToolResultError("The sandbox could not encode the result. Try again."), nil
	}
	return mcp.NewToolResultStructured(out, string(text)), nil
}

// tie ends ctx with the session that the call belongs to. Over SSE mcp-go lets calls run on when the client is gone.
func (t *mcpTool) tie(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	id := ""
	if s := server.ClientSessionFromContext(ctx); s != nil {
		id = s.SessionID()
	}
	if id == "" {
		return ctx, cancel // a modern call: it ends with its request
	}
	s, open := t.sessions.get(id)
	if !open {
		cancel() // the session ended while the call was on its way
		return ctx, cancel
	}
	unhook := context.AfterFunc(s.ctx, cancel)
	done := s.use()
	return ctx, func() {
		unhook()
		cancel()
		done()
	}
}

// arguments checks what the client sent, in sentences that a model can act on. Null and absent are the same; unknown
// names are ignored, since some clients add their own.
func (t *mcpTool) arguments(raw json.RawMessage) (in executeInput, fault string) {
	var sent any
	if len(raw) > 0 {
		if err := decode(raw, &sent); err != nil {
			return in, sentenceOf(strings.Replace(err.Error(), "the body", "the arguments object", 1))
		}
	}
	args, ok := sent.(map[string]any)
	if !ok && sent != nil {
		return in, "The arguments must be an object such as {\"code\": \"print(1)\"}, not " + kindOf(sent) + "."
	}
	switch code := args["code"].(type) {
	case nil:
		return in, "The argument code is missing: pass the Python source to run as a string."
	case string:
		if len(code) > maxCodeBytes {
			return in, fmt.Sprintf("The code is %d bytes long and at most %d are accepted: make it shorter, or read the data from stdin.", len(code), maxCodeBytes)
		}
		in.Code = code
	default:
		return in, "The argument code must be a string of Python source, not " + kindOf(code) + "."
	}
	switch timeout := args["timeout"].(type) {
	case nil:
	case float64:
		most := t.o.MaxTimeout.Seconds()
		if !(timeout > 0) || timeout > most {
			return in, fmt.Sprintf("The argument timeout is %s: choose a number of seconds more than 0 and up to %s.", seconds(timeout), seconds(most))
		}
		in.Timeout = &timeout
	default:
		return in, "The argument timeout must be a number of seconds such as 10, not " + kindOf(timeout) + "."
	}
	switch stdin := args["stdin"].(type) {
	case nil:
	case string:
		in.Stdin = stdin
	default:
		return in, "The argument stdin must be a string, not " + kindOf(stdin) + "."
	}
	return in, ""
}

// begin counts one more call in, or says why not.
func (t *mcpTool) begin() (fault string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closing:
		return "The sandbox is shutting down. Try again in a few seconds."
	case t.running >= t.o.MaxConcurrent:
		return fmt.Sprintf("The sandbox is busy: %d calls are in progress already. Try again in a few seconds.", t.running)
	}
	t.running++
	return ""
}

func (t *mcpTool) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if t.closing && t.running == 0 {
		close(t.idle)
	}
}

// wait refuses further calls and gives those that run up to grace. It says whether there were any. Called once.
func (t *mcpTool) wait(grace time.Duration) bool {
	t.mu.Lock()
	t.closing = true
	running := t.running
	t.mu.Unlock()
	if running == 0 {
		return false
	}
	select {
	case <-t.idle:
	case <-time.After(grace):
	}
	return true
}

// sentence turns the executor's error into words for a model.
func (t *mcpTool) sentence(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "The call was cancelled."
	}
	return sentenceOf(strings.ReplaceAll(asProblem(err).Detail, "body.", ""))
}

// sentenceOf makes a sentence of words that begin small, as errors do.
func sentenceOf(words string) string {
	if words == "" {
		return "The sandbox could not run the code."
	}
	return strings.ToUpper(words[:1]) + strings.TrimRight(words[1:], ".") + "."
}

// mcpInstructions is what a client puts before its model: what is there, and what is not.
func mcpInstructions(o mcpOptions) string {
	var b strings.Builder
	b.WriteString("Runs Python")
	if o.Python != "" {
		b.WriteString(" " + o.Python)
	}
	b.WriteString(" with the tool execute_python. Each call is a fresh, isolated process: variables, imports and files do " +
		"not persist from one call to the next, so send a complete program each time. Only what the code prints comes back. " +
		"There is no network.")
	if len(o.Preload) > 0 {
		b.WriteString(" Already imported in the process, so that importing them costs nothing: " + strings.Join(o.Preload, ", ") + ".")
	}
	fmt.Fprintf(&b, " A call may run for up to %s seconds (%s unless asked otherwise).",
		seconds(o.MaxTimeout.Seconds()), seconds(o.DefaultTimeout.Seconds()))
	return b.String()
}

func seconds(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// kindOf names a decoded JSON value as a person would.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}
