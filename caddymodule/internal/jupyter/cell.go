package jupyter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation/hint"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// cell is one execute_request.
type cell struct {
	ctx        context.Context // ends when the kernel ends or is restarted
	cancel     context.CancelFunc
	interrupts chan struct{}   // buffered(1)
	over       chan struct{}   // closed when the cell is answered and the kernel has taken the next one from its queue
	parent     json.RawMessage // the header of the request
	from       *socket         // gets the reply
	executeContent
}

// executeContent is the content of an execute_request.
type executeContent struct {
	Code         string            `json:"code"`
	Silent       bool              `json:"silent"`
	StoreHistory *bool             `json:"store_history"`
	Expressions  map[string]string `json:"user_expressions"`
	StopOnError  *bool             `json:"stop_on_error"`
}

// interrupt asks the cell to end. It does not block, and may be called before the cell runs.
func (c *cell) interrupt() {
	select {
	case c.interrupts <- struct{}{}:
	default: // an interrupt is waiting already
	}
}

// namesGone ends the sentences about a process that has ended.
const namesGone = "the names, imports and files of earlier cells are gone"

// run runs one cell and answers it. When the cell has failed, run returns the queued cells, which its caller must abort: clients sent
// them before they knew of the failure.
func (k *kernel) run(c *cell) (aborted []*cell) {
	k.front.o.InFlight.Add(1)
	defer k.front.o.InFlight.Add(-1)
	count := k.next(c)
	k.publish(c.parent, "status", state("busy"))
	defer k.publish(c.parent, "status", state("idle"))
	if !c.Silent {
		k.publish(c.parent, "execute_input", map[string]any{"code": c.Code, "execution_count": count})
	}
	failure := k.runIn(c, count)
	if failure == nil {
		k.reply(c.from, channelShell, c.parent, "execute_reply", map[string]any{
			"status": "ok", "execution_count": count, "user_expressions": refuseExpressions(c.Expressions), "payload": []any{},
		})
		return nil
	}
	if c.StopOnError == nil || *c.StopOnError {
		aborted = k.waiting()
	}
	k.publish(c.parent, "error", failure)
	k.replyFailure(c, failure, count)
	return aborted
}

// runIn runs a cell in the kernel's process, logs and counts it, and returns its failure, nil for none.
func (k *kernel) runIn(c *cell, count int) *cellFailure {
	id := operation.NewID()
	source := cellSource{code: c.Code}
	for {
		p, fresh, err := k.lease(c)
		if err != nil {
			return k.refused(c, id, err)
		}
		mark := strings.ReplaceAll(newUUID(), "-", "")
		out := newCellOutput(mark, k.front.o.Output, func(kind string, content any) {
			if bundle, ok := content.(cellBundle); ok && kind == "execute_result" {
				if c.Silent {
					return
				}
				bundle.ExecutionCount = count
				content = bundle
			}
			k.publish(c.parent, kind, content)
		})
		end := p.run(c, out, cellFrame(mark, count, source.code))
		if end.died {
			k.forget(p)
			byUs := end.interrupted || end.timedOut
			switch {
			case c.ctx.Err() == nil && !fresh && !end.begun && !byUs:
				continue // the process ended before the cell began: run the cell in a fresh one
			case p.err != nil && (c.ctx.Err() != nil || !p.hasWorker() || !byUs):
				return k.refused(c, id, p.err)
			}
		}
		failure, result := k.outcome(p, end)
		if failure != nil && !end.died && source.other(failure) {
			continue
		}
		if source.first != nil {
			if !end.died && failedToCompile(failure) {
				failure = source.first
			} else {
				k.publish(c.parent, "stream", streamText{"stderr", "[" + hint.Unfenced + "]\n"})
			}
		}
		if !end.died { // when it died, the failure is a sentence of ours, which needs no hint
			k.addHint(c, p, failure)
		}
		if fresh {
			result.Usage.QueueTime = p.waited
		}
		k.front.ex.Executed(operation.Record{ID: id, Code: c.Code, Result: result, StdoutBytes: end.stdoutBytes, StderrBytes: end.stderrBytes})
		return failure
	}
}

// refused logs and counts a cell that err has kept from running or has ended, and returns its failure.
func (k *kernel) refused(c *cell, id string, err error) *cellFailure {
	switch {
	case c.ctx.Err() != nil || errors.Is(err, context.Canceled):
		_ = k.front.ex.Failed(id, c.Code, context.Canceled) // only logs and counts: the client gets a KeyboardInterrupt
		return newFailure("KeyboardInterrupt", "the execution was interrupted")
	case errors.Is(err, errNoSlot):
		_ = k.front.ex.Failed(id, c.Code, pool.ErrQueueFull) // only logs and counts: the client gets the sentence below
		return newFailure("SandboxError", fmt.Sprintf("%d kernels have a process already, the most at a time, and all are in use: delete a kernel, or ask the operator to raise workers max", cap(k.front.o.Slots.taken)))
	}
	return newFailure("SandboxError", strings.ReplaceAll(k.front.ex.Failed(id, c.Code, err).Detail, "body.", ""))
}

func newFailure(name, words string) *cellFailure {
	return &cellFailure{name, words, []string{name + ": " + words}}
}

// lease returns the kernel's process, or starts a fresh one when there is none. If an earlier process was lost, the output of c then
// begins with a line that says so.
func (k *kernel) lease(c *cell) (p *process, fresh bool, err error) {
	k.mu.Lock()
	p = k.process
	k.mu.Unlock()
	if p != nil {
		if !p.ended() {
			return p, false, nil
		}
		k.forget(p)
	}
	if err := k.front.o.Slots.take(c.ctx, c.interrupts, k.front.o.AcquireTimeout); err != nil {
		return nil, false, err
	}
	k.mu.Lock()
	if k.ended || c.ctx.Err() != nil {
		k.mu.Unlock()
		k.front.o.Slots.give()
		return nil, false, context.Canceled
	}
	lost := k.lost
	k.lost = ""
	p = k.front.startProcess()
	k.process = p
	k.mu.Unlock()
	if lost != "" {
		k.publish(c.parent, "stream", streamText{"stderr", fmt.Sprintf("[This cell runs in a fresh process: the last one %s, and %s.]\n", lost, namesGone)})
	}
	return p, true, nil
}

// forget detaches a process that has ended from the kernel, and keeps why it ended for the next cell.
func (k *kernel) forget(p *process) {
	fate := ""
	if p.hasWorker() {
		fate = p.fate()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.process == p {
		k.process, k.lost = nil, fate
	}
}

// next returns the execution count of c. Cells that are silent or not stored in the history do not raise it.
func (k *kernel) next(c *cell) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !c.Silent && (c.StoreHistory == nil || *c.StoreHistory) {
		k.count++
	}
	return k.count
}

// outcome returns how a cell that has run ended: the failure for its client, nil for none, and the result for logs and metrics.
func (k *kernel) outcome(p *process, end cellEnd) (*cellFailure, pool.Result) {
	said := end.said
	result := pool.Result{Status: pool.StatusOK, ExecutionTime: end.took, OutputBytes: int64(end.stdoutBytes + end.stderrBytes)}
	switch {
	case end.died && !end.timedOut && !end.interrupted:
		result.Status, result.ExitCode = p.result.Status, p.result.ExitCode
		name := map[pool.Status]string{pool.StatusMemoryLimit: "MemoryError", pool.StatusOutputLimit: "OutputLimitError",
			pool.StatusKilled: "ProcessKilled", pool.StatusTimeout: "TimeoutError"}[result.Status]
		if name == "" {
			name = "ProcessExited"
		}
		words := "the process " + p.fate() + "; " + namesGone
		if held := p.result.Usage.Processes; result.Status == pool.StatusMemoryLimit && held > 1 {
			words += ". " + hint.FewerJobs(held)
		}
		return newFailure(name, words), result
	case end.timedOut:
		result.Status, result.ExitCode = pool.StatusTimeout, 124
		words := fmt.Sprintf("the code ran longer than %s and was interrupted; what it showed before is above", k.front.o.Timeout)
		if end.died {
			words = fmt.Sprintf("the code ran longer than %s and was ended, with its process; %s", k.front.o.Timeout, namesGone)
		}
		failure := newFailure("TimeoutError", words)
		if said != nil && !end.died {
			failure.Traceback = append(failure.Traceback, said.Traceback...)
		}
		return failure, result
	case end.died:
		result.Status, result.ExitCode = pool.StatusKilled, 137
		return newFailure("KeyboardInterrupt", "the process "+p.fate()+"; "+namesGone), result
	case said == nil:
		return nil, result
	}
	result.Status, result.ExitCode = pool.StatusError, 1
	if said.Name == "KeyboardInterrupt" {
		result.ExitCode = 130
	}
	return said, result
}

// addHint appends a hint about what to do to the traceback of a failure.
func (k *kernel) addHint(c *cell, p *process, failure *cellFailure) {
	if failure == nil || k.front.o.Hint == nil {
		return
	}
	if words := k.front.o.Hint(c.Code, strings.Join(failure.Traceback, "\n"), int(p.generation.Load())); words != "" {
		failure.Traceback = append(failure.Traceback, words)
	}
}

// refuseExpressions answers user_expressions. They are not supported, since no known client that runs code sends them.
func refuseExpressions(expressions map[string]string) map[string]any {
	answers := map[string]any{}
	for name := range expressions {
		answers[name] = cellRefusal{"error", cellFailure{"NotImplementedError", "user_expressions are not evaluated here: let the cell show the value", []string{}}}
	}
	return answers
}

type cellRefusal struct {
	Status string `json:"status"`
	cellFailure
}

func (k *kernel) replyFailure(c *cell, failure *cellFailure, count int) {
	k.reply(c.from, channelShell, c.parent, "execute_reply", map[string]any{
		"status": "error", "execution_count": count, "user_expressions": map[string]any{}, "payload": []any{},
		"ename": failure.Name, "evalue": failure.Value, "traceback": failure.Traceback,
	})
}
