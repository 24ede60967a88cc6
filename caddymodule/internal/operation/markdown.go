package operation

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation/markdown"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// run runs the code of a request; or the program in its Markdown fences when the code does not compile, which unfenced reports. Code
// that compiles is run as it is, and never searched for fences.
func (o *Executions) run(ctx context.Context, req pool.Request) (result pool.Result, unfenced bool, err error) {
	certain := markdown.Certain(req.Code)
	if !certain {
		result, err = o.Pool.Execute(ctx, req)
		if err != nil || !failedToCompile(result) {
			return result, false, err
		}
	}
	programs := markdown.Programs(req.Code)
	chosen := 0
	switch {
	case len(programs) == 0:
		chosen = -1
	case certain && len(programs) == 1:
	case certain:
		if chosen, err = o.firstThatCompiles(ctx, req, programs); chosen < 0 {
			chosen = 0 // none compiles, and its syntax error is the best description of what is wrong
		}
	default:
		// The code may have compiled and printed what looks like a syntax error: so it is tried as well, and comes first.
		chosen, err = o.firstThatCompiles(ctx, req, slices.Insert(slices.Clone(programs), 0, req.Code))
		chosen--
	}
	switch {
	case err != nil:
		return pool.Result{}, false, err
	case chosen >= 0:
		queued := result.Usage.QueueTime
		req.Code = programs[chosen]
		result, err = o.Pool.Execute(ctx, req)
		result.Usage.QueueTime += queued
		return result, true, err
	case certain:
		result, err = o.Pool.Execute(ctx, req)
	}
	return result, false, err
}

// failedToCompile reports whether a result looks like that of code that does not compile.
func failedToCompile(r pool.Result) bool {
	const most = 4 << 10 // bytes: a syntax error stands at the end
	stderr := r.Stderr[max(0, len(r.Stderr)-most):]
	return r.Status == pool.StatusError && r.ExitCode == 1 && r.Stdout == "" && !strings.Contains(stderr, "Traceback (most recent call last)") &&
		(strings.Contains(stderr, "\nSyntaxError: ") || strings.Contains(stderr, "\nIndentationError: ") || strings.Contains(stderr, "\nTabError: "))
}

// compileProgram reads sources from standard input and prints the number of the first one that compiles. It runs none of them.
const compileProgram = `import json, sys, warnings
warnings.simplefilter("ignore")
for number, source in enumerate(json.load(sys.stdin)):
    try:
        compile(source, "main.py", "exec", 0, True)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
        continue
    print(number)
    break
`

// compileTimeout bounds a run of compileProgram.
const compileTimeout = 10 * time.Second

// firstThatCompiles returns the number of the first source that compiles in a worker, and -1 for none.
func (o *Executions) firstThatCompiles(ctx context.Context, req pool.Request, sources []string) (int, error) {
	list, err := json.Marshal(sources)
	if err != nil {
		return -1, err //nolint:wrapcheck // strings
	}
	result, err := o.Pool.Execute(ctx, pool.Request{ID: req.ID, Code: compileProgram, Stdin: string(list), Timeout: min(req.Timeout, compileTimeout)})
	if err != nil {
		return -1, err
	}
	if number, err := strconv.Atoi(strings.TrimSpace(result.Stdout)); err == nil && number >= 0 && number < len(sources) {
		return number, nil
	}
	return -1, nil // it prints nothing when none does
}
