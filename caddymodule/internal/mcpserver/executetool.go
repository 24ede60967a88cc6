package mcpserver

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// executeOutputSchema describes operation.ExecuteOutput to MCP clients; a test compares the two. It does not forbid further
// properties, so that fields can be added later.
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
    "hint": {"type": "string", "description": "What to do next, in a sentence or two: about a module that is missing, a limit that was met, a network that is not there, code that is no plain Python; else absent."},
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

// executeTool is the tool execute_python.
type executeTool struct {
	*calls
	ex operation.Executor
}

// definition returns the tool as tools/list shows it. The descriptions repeat ranges and choices in words, since clients such as
// mcpo drop those keywords of the JSON schema.
func (t *executeTool) definition() mcp.Tool {
	standard, most := t.o.DefaultTimeout.Seconds(), t.o.MaxTimeout.Seconds()
	return mcp.NewTool("execute_python",
		mcp.WithToolTitle("Execute Python"),
		mcp.WithDescription("Run Python source as a script in a fresh, isolated process and return its output. "+
			"Print what you want to see: the value of the last expression is not shown. "+
			"Nothing is kept from one call to the next: no variables, imports or files. There is no network"+operation.PackagesWords(t.o.Install)+". "+
			"Returns stdout, stderr, exit_code, status and timings; an exception in the code is a normal result with its "+
			"traceback in stderr."),
		mcp.WithString("code", mcp.Required(), mcp.Title("Code"), mcp.MaxLength(operation.MaxCodeBytes),
			mcp.Description("Python source, run as __main__; up to 1 MiB.")),
		mcp.WithNumber("timeout", mcp.Title("Timeout"), mcp.DefaultNumber(standard), mcp.Max(most), moreThan(0),
			mcp.Description(fmt.Sprintf("Seconds the code may run, more than 0 and up to %s; fractions are allowed. Default %s.",
				operation.Seconds(most), operation.Seconds(standard)))),
		mcp.WithString("stdin", mcp.Title("Standard input"), mcp.DefaultString(""),
			mcp.Description("Text that the code reads from standard input, for input() and sys.stdin. Default empty.")),
		mcp.WithRawOutputSchema(json.RawMessage(executeOutputSchema)),
		mcp.WithReadOnlyHintAnnotation(false),
		mcp.WithDestructiveHintAnnotation(false), // files that the code writes go with its process
		mcp.WithIdempotentHintAnnotation(false),
		mcp.WithOpenWorldHintAnnotation(false))
}

func moreThan(n float64) mcp.PropertyOption {
	return func(schema map[string]any) { schema["exclusiveMinimum"] = n }
}

// call handles one call of execute_python.
func (t *executeTool) call(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	return t.run(ctx, func() (func(context.Context) (any, error), string) {
		in, fault := t.arguments(req.Params.RawArguments)
		return func(ctx context.Context) (any, error) {
			defer t.tellTime(ctx, req, &in)()
			return t.ex.Execute(ctx, in)
		}, fault
	})
}

// tellTime sends progress notifications while the call waits for a worker or runs, when the client has sent a progress token. It
// sets in.Leased for that. The caller must call stop before it returns the result.
func (t *executeTool) tellTime(ctx context.Context, req mcp.CallToolRequest, in *operation.ExecuteInput) (stop func()) {
	notes := newProgressNotes(ctx, req)
	if notes == nil {
		return func() {}
	}
	limit := t.o.DefaultTimeout
	if in.Timeout != nil {
		limit = time.Duration(*in.Timeout * float64(time.Second))
	}
	var began atomic.Pointer[time.Time]
	in.Leased = func() { now := time.Now(); began.Store(&now) }
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(t.o.runNotes)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			begin := began.Load()
			if begin == nil {
				notes.tell(note{"queued", 0, "queued: waiting for a free worker"})
				continue
			}
			ran := time.Since(*begin)
			notes.tell(note{"running", 0.01 + 0.98*min(1, ran.Seconds()/limit.Seconds()),
				fmt.Sprintf("running for %d s of at most %s s", int(ran.Seconds()), operation.Seconds(limit.Seconds()))})
		}
	}()
	return func() {
		close(done)
		<-ended
		notes.close()
	}
}

// decodeArguments decodes the arguments of a call; args is nil when they are absent or null. fault is a sentence for the model when
// they are not a JSON object, and shows example as one that is right.
func decodeArguments(raw json.RawMessage, example string) (args map[string]any, fault string) {
	var sent any
	if len(raw) > 0 {
		if err := edge.Decode(raw, &sent); err != nil {
			return nil, operation.Sentence(strings.Replace(err.Error(), "the body", "the arguments object", 1))
		}
	}
	args, ok := sent.(map[string]any)
	if !ok && sent != nil {
		return nil, "The arguments must be an object such as " + example + ", not " + operation.JSONKind(sent) + "."
	}
	return args, ""
}

// arguments checks the arguments of a call; fault is a sentence that the model can act on. Null means the same as absent. Unknown
// names are ignored, since some clients add names of their own.
func (t *executeTool) arguments(raw json.RawMessage) (in operation.ExecuteInput, fault string) {
	args, fault := decodeArguments(raw, `{"code": "print(1)"}`)
	if fault != "" {
		return in, fault
	}
	switch code := args["code"].(type) {
	case nil:
		return in, "The argument code is missing: pass the Python source to run as a string."
	case string:
		if len(code) > operation.MaxCodeBytes {
			return in, fmt.Sprintf("The code is %d bytes long and at most %d are accepted: make it shorter, or read the data from stdin.", len(code), operation.MaxCodeBytes)
		}
		in.Code = code
	default:
		return in, "The argument code must be a string of Python source, not " + operation.SentKind("code", code) + "."
	}
	switch timeout := args["timeout"].(type) {
	case nil:
	case float64:
		most := t.o.MaxTimeout.Seconds()
		if !(timeout > 0) || timeout > most {
			return in, fmt.Sprintf("The argument timeout is %s: choose a number of seconds more than 0 and up to %s.", operation.Seconds(timeout), operation.Seconds(most))
		}
		in.Timeout = &timeout
	default:
		return in, "The argument timeout must be a number of seconds such as 10, not " + operation.SentKind("timeout", timeout) + "."
	}
	switch stdin := args["stdin"].(type) {
	case nil:
	case string:
		in.Stdin = stdin
	default:
		return in, "The argument stdin must be a string, not " + operation.SentKind("stdin", stdin) + "."
	}
	return in, ""
}

// instructions returns what the server says of itself in its answer to initialize; clients give it to their model.
func instructions(o Options) string {
	var b strings.Builder
	b.WriteString("Runs Python")
	if o.Python != "" {
		b.WriteString(" " + o.Python)
	}
	b.WriteString(" with the tool execute_python. Each call is a fresh, isolated process: variables, imports and files do " +
		"not persist from one call to the next, so send a complete program each time. Only what the code prints comes back. " +
		"There is no network.")
	if o.Install != nil {
		b.WriteString(" Packages are installed with the tool pip_install and stay for later calls; a missing module's hint says which.")
	}
	if len(o.Preload) > 0 {
		b.WriteString(" Already imported in the process, so that importing them costs nothing: " + strings.Join(o.Preload, ", ") + ".")
	}
	fmt.Fprintf(&b, " A call may run for up to %s seconds (%s unless asked otherwise).",
		operation.Seconds(o.MaxTimeout.Seconds()), operation.Seconds(o.DefaultTimeout.Seconds()))
	return b.String()
}
