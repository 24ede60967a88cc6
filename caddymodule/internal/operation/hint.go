package operation

import (
	"fmt"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation/hint"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// hintOn says what to do about how a run has ended, in a sentence or two for a model; "" when there is nothing to say.
func (o *Executions) hintOn(r pool.Result, in ExecuteInput, timeout time.Duration) string {
	switch r.Status {
	case pool.StatusOK, pool.StatusError:
		return hint.On(hint.End{Code: in.Code, Stdout: r.Stdout, Stderr: r.Stderr, Failed: r.Status == pool.StatusError, Stdin: in.Stdin != ""},
			o.Packages, o.hintLimits())
	case pool.StatusTimeout:
		more := ""
		if timeout < o.MaxTimeout {
			more = fmt.Sprintf(", or set timeout to more seconds, up to %s", Seconds(o.MaxTimeout.Seconds()))
		}
		return fmt.Sprintf("The code was ended after its timeout of %s s, and its output until then is here. Give it less to do%s.", Seconds(timeout.Seconds()), more)
	case pool.StatusMemoryLimit:
		advice := hint.LessMemory
		if r.Usage.Processes > 1 {
			advice = hint.FewerJobs(r.Usage.Processes)
		}
		return fmt.Sprintf("The code and what it started held more than %s together and were ended. %s", SizeText(o.Memory), advice)
	case pool.StatusOutputLimit:
		return fmt.Sprintf("The code was ended since it had printed more than %s. Print a summary, or the part that matters.", SizeText(o.OutputKill))
	case pool.StatusKilled:
	}
	return ""
}

func (o *Executions) hintLimits() hint.Limits {
	return hint.Limits{Memory: SizeText(o.Memory), Processes: o.Processes}
}

// HintOnCell returns the hint about a kernel's cell that has failed with this traceback; "" when there is nothing to say.
func (o *Executions) HintOnCell(code, traceback string, packages hint.Packages) string {
	return hint.On(hint.End{Code: code, Stderr: traceback, Failed: true, Kernel: true}, packages, o.hintLimits())
}
