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

// run runs the code of a request, or what it holds in Markdown fences when it does not compile as it is. Code that compiles has
// nothing to do with any of that.
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
			chosen = 0 // its own words about what is wrong with it are the best
		}
	default:
		// What a program prints could look like the end of one that does not compile: so the code as it was sent is asked, too.
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

// failedToCompile reports whether a run has ended as one does whose code does not compile.
func failedToCompile(r pool.Result) bool {
	const most = 4 << 10 // a line of code that is longer than that is not shown in whole either
	stderr := r.Stderr[max(0, len(r.Stderr)-most):]
	return r.Status == pool.StatusError && r.ExitCode == 1 && r.Stdout == "" && !strings.Contains(stderr, "Traceback (most recent call last)") &&
		(strings.Contains(stderr, "\nSyntaxError: ") || strings.Contains(stderr, "\nIndentationError: ") || strings.Contains(stderr, "\nTabError: "))
}

// compileProgram prints the number of the first of some sources that compiles. It runs none of them.
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

// compileTimeout bounds the look at a few sources.
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
