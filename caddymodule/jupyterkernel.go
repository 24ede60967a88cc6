package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

func tooManyKernels(most int, idle time.Duration) string {
	return fmt.Sprintf("%d kernels exist already, the most that this server keeps: delete one, or wait; those that nobody uses end after %s", most, idle)
}

// jupyterKernel is a name under which clients run cells, one after the other, and the sockets that hear of them. It has no
// process: each cell gets its own. It is safe for concurrent use.
type jupyterKernel struct {
	front   *jupyterFront
	id      string
	session string // of the messages that it sends

	mu      sync.Mutex
	ended   bool
	sockets []*jupyterSocket
	running *jupyterCell // nil for none
	queue   []*jupyterCell
	count   int // of executions
	last    time.Time
}

// jupyterCell is one execute_request.
type jupyterCell struct {
	ctx    context.Context
	cancel context.CancelFunc
	parent json.RawMessage
	from   *jupyterSocket
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

func newJupyterKernel(f *jupyterFront) *jupyterKernel {
	return &jupyterKernel{front: f, id: newUUID(), session: newUUID(), last: time.Now()}
}

func (k *jupyterKernel) model() kernelModel {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := kernelModel{ID: k.id, Name: jupyterKernelName, LastActivity: jupyterTime(k.last), ExecutionState: "idle", Connections: len(k.sockets)}
	if k.running != nil {
		m.ExecutionState = "busy"
	}
	return m
}

// used marks that somebody uses the kernel.
func (k *jupyterKernel) used() {
	now := time.Now()
	k.mu.Lock()
	k.last = now
	k.mu.Unlock()
	k.front.mu.Lock()
	k.front.last = now
	k.front.mu.Unlock()
}

func (k *jupyterKernel) idleSince(then time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.running == nil && k.last.Before(then)
}

// join adds a socket, or says why not.
func (k *jupyterKernel) join(s *jupyterSocket) (refused string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ended:
		return "the kernel has ended: start another one"
	case len(k.sockets) >= maxJupyterSockets:
		return fmt.Sprintf("%d connections to this kernel are open already: close one", maxJupyterSockets)
	}
	k.sockets = append(k.sockets, s)
	return ""
}

// leave removes a socket. What runs ends with the last one.
func (k *jupyterKernel) leave(s *jupyterSocket) {
	k.used()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sockets = slices.DeleteFunc(k.sockets, func(other *jupyterSocket) bool { return other == s })
	k.queue = slices.DeleteFunc(k.queue, func(c *jupyterCell) bool { return c.from == s })
	if len(k.sockets) == 0 && k.running != nil {
		k.running.cancel()
	}
}

// interrupt ends the cell that runs; those that wait behind it are aborted.
func (k *jupyterKernel) interrupt() {
	k.used()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running != nil {
		k.running.cancel()
	}
}

// restart ends what runs and waits, and counts from one again.
func (k *jupyterKernel) restart() {
	k.interrupt()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count = 0
}

// end ends what runs and tells the sockets why. Called by front.remove.
func (k *jupyterKernel) end(why string) {
	k.mu.Lock()
	k.ended = true
	k.queue = nil
	if k.running != nil {
		k.running.cancel()
	}
	sockets := slices.Clone(k.sockets)
	k.mu.Unlock()
	for _, s := range sockets {
		s.end(closeGoingAway, why)
	}
}

// enqueue runs c after those that came before it, or says why not.
func (k *jupyterKernel) enqueue(c *jupyterCell) (refused string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ended:
		return "the kernel has ended: start another one"
	case len(k.queue) >= maxJupyterQueue:
		return fmt.Sprintf("%d cells wait in this kernel already: wait for their replies", maxJupyterQueue)
	}
	c.ctx, c.cancel = context.WithCancel(k.front.ctx)
	if k.running != nil {
		k.queue = append(k.queue, c)
		return ""
	}
	k.running = c
	k.front.work.Go(func() { k.runFrom(c) })
	return ""
}

// runFrom runs c, and then what waits.
func (k *jupyterKernel) runFrom(c *jupyterCell) {
	defer func() {
		if panicked := recover(); panicked != nil {
			k.front.o.Logger.Error("a cell panicked", zap.Any("panic", panicked), zap.Stack("stack"))
			k.front.remove(k, internalDetail)
		}
	}()
	for c != nil {
		failed := k.run(c)
		c.cancel()
		k.used()
		if failed && (c.StopOnError == nil || *c.StopOnError) {
			k.abort()
		}
		c = k.advance()
	}
}

// advance makes the cell that has waited longest the one that runs.
func (k *jupyterKernel) advance() *jupyterCell {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = nil
	if len(k.queue) > 0 {
		k.running = k.queue[0]
		k.queue = k.queue[1:]
	}
	return k.running
}

// abort answers all cells that wait without running them: their client meant them to follow one that failed.
func (k *jupyterKernel) abort() {
	k.mu.Lock()
	waiting := k.queue
	k.queue = nil
	k.mu.Unlock()
	for _, c := range waiting {
		k.publish(c.parent, "status", jupyterState("busy"))
		k.reply(c.from, channelShell, c.parent, "execute_reply", map[string]any{"status": "aborted"})
		k.publish(c.parent, "status", jupyterState("idle"))
	}
}

func jupyterState(state string) any { return map[string]string{"execution_state": state} }

// run runs one cell and says how it went, and whether it failed.
func (k *jupyterKernel) run(c *jupyterCell) (failed bool) {
	k.front.o.InFlight.Add(1)
	defer k.front.o.InFlight.Add(-1)
	count := k.next(c)
	k.publish(c.parent, "status", jupyterState("busy"))
	defer k.publish(c.parent, "status", jupyterState("idle"))
	if !c.Silent {
		k.publish(c.parent, "execute_input", map[string]any{"code": c.Code, "execution_count": count})
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
	result, err := k.front.ex.execute(c.ctx, executeInput{Code: c.Code, driver: driverFor(mark, k.front.o.Output), stdout: out.write})
	out.finish(result.Stderr)
	failure := k.failure(c.ctx, out.failure, result, err)
	if failure == nil {
		k.reply(c.from, channelShell, c.parent, "execute_reply", map[string]any{
			"status": "ok", "execution_count": count, "user_expressions": refuseExpressions(c.Expressions), "payload": []any{},
		})
		return false
	}
	k.publish(c.parent, "error", failure)
	k.replyFailure(c, failure, count)
	return true
}

func (k *jupyterKernel) replyFailure(c *jupyterCell, failure *cellFailure, count int) {
	k.reply(c.from, channelShell, c.parent, "execute_reply", map[string]any{
		"status": "error", "execution_count": count, "user_expressions": map[string]any{}, "payload": []any{},
		"ename": failure.Name, "evalue": failure.Value, "traceback": failure.Traceback,
	})
}

// next counts an execution.
func (k *jupyterKernel) next(c *jupyterCell) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !c.Silent && (c.StoreHistory == nil || *c.StoreHistory) {
		k.count++
	}
	return k.count
}

// failure is what ended a cell, nil when nothing did.
func (k *jupyterKernel) failure(ctx context.Context, said *cellFailure, result executeOutput, err error) *cellFailure {
	fail := func(name, words string) *cellFailure {
		return &cellFailure{name, words, []string{name + ": " + words}}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return fail("KeyboardInterrupt", "the execution was interrupted")
	case err != nil:
		return fail("SandboxError", strings.ReplaceAll(asProblem(err).Detail, "body.", ""))
	}
	switch pool.Status(result.Status) {
	case pool.StatusOK:
		return said // set only by a program that made it up, and then it is what it says
	case pool.StatusTimeout:
		return fail("TimeoutError", fmt.Sprintf("the code ran longer than %s and was ended; what it showed before is above", k.front.o.Timeout))
	case pool.StatusMemoryLimit:
		return fail("MemoryError", "the code used more memory than limits memory allows and was ended: use less data at once")
	case pool.StatusOutputLimit:
		return fail("OutputLimitError", "the code wrote an absurd amount of output and was ended: print less")
	case pool.StatusKilled:
		return fail("ProcessKilled", fmt.Sprintf("the process was ended by a signal, exit code %d", result.ExitCode))
	}
	if said == nil {
		return fail("ProcessExited", fmt.Sprintf("the process ended with exit code %d", result.ExitCode))
	}
	if said.Name == "ModuleNotFoundError" && k.front.o.Hint != nil {
		if module := missingModule(said.Name + ": " + said.Value); module != "" {
			if hint := k.front.o.Hint(module); hint != "" {
				said.Traceback = append(said.Traceback, hint)
			}
		}
	}
	return said
}

// refuseExpressions answers user_expressions: when they are asked for, the process with the names is gone.
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

// publish sends to all sockets.
func (k *jupyterKernel) publish(parent json.RawMessage, kind string, content any) {
	m := newJupyterMessage(k.session, channelIOPub, kind, parent, content)
	k.mu.Lock()
	sockets := slices.Clone(k.sockets)
	k.mu.Unlock()
	frames := jupyterFrames{message: m}
	for _, s := range sockets {
		s.send(frames.of(s.v1))
	}
}

// reply sends to the socket that asked.
func (k *jupyterKernel) reply(to *jupyterSocket, channel string, parent json.RawMessage, kind string, content any) {
	frames := jupyterFrames{message: newJupyterMessage(k.session, channel, kind, parent, content)}
	to.send(frames.of(to.v1))
}

// jupyterFrames encodes a message once for each framing that somebody has asked for.
type jupyterFrames struct {
	message  *jupyterMessage
	text, v1 []byte
}

func (f *jupyterFrames) of(v1 bool) []byte {
	if v1 {
		if f.v1 == nil {
			f.v1 = f.message.encodeV1()
		}
		return f.v1
	}
	if f.text == nil {
		f.text = f.message.encodeText()
	}
	return f.text
}
