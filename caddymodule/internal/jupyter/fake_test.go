package jupyter

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// fakeCells stands for the pool. The code of a cell is a command to fakeProcess.cell, such as "set NAME" or "block".
type fakeCells struct {
	runs, ended               atomic.Int64 // of cells
	processes, processesEnded atomic.Int64
	generation                atomic.Int64

	mu   sync.Mutex
	told []string // statuses and kinds of errors for logs and metrics, and interrupts
}

func (f *fakeCells) Executed(x operation.Record) { f.tell(string(x.Result.Status)) }

func (f *fakeCells) Failed(_, _ string, err error) *edge.Problem {
	p := edge.AsProblem(err)
	f.tell(string(p.Kind))
	return p
}

func (f *fakeCells) tell(word string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, word)
}

// fakeProcess is the process of one session.
type fakeProcess struct {
	*fakeCells
	ctx   context.Context
	in    operation.SessionInput
	mark  string
	names map[string]bool
}

func (f *fakeCells) Session(ctx context.Context, in operation.SessionInput) (pool.Result, error) {
	if in.Input == nil {
		return pool.Result{}, nil // the session that compiles the driver
	}
	f.processes.Add(1)
	defer f.processesEnded.Add(1)
	p := &fakeProcess{fakeCells: f, ctx: ctx, in: in, names: map[string]bool{}}
	if f.generation.Load() < 0 {
		return pool.Result{}, pool.ErrQueueFull
	}
	in.Leased(int(f.generation.Load()))
	for {
		select {
		case frame := <-in.Input:
			if result, over := p.cell(frame); over {
				if ctx.Err() != nil {
					return pool.Result{}, ctx.Err()
				}
				return result, nil
			}
		case told := <-in.Interrupt:
			told(true)
			f.tell("an interrupt between cells")
		case <-ctx.Done():
			return pool.Result{}, context.Cause(ctx)
		}
	}
}

// say writes a record to standard output, in pieces.
func (p *fakeProcess) say(fields ...string) {
	out := "\x1e" + p.mark
	for _, field := range fields {
		out += " " + base64.StdEncoding.EncodeToString([]byte(field))
	}
	out += "\x1d"
	step := 1 + len(out)/100
	for at := 0; at < len(out); at += step {
		p.in.Stdout([]byte(out[at:min(at+step, len(out))]))
	}
}

func (p *fakeProcess) end() {
	p.say("end")
	p.in.Stderr([]byte("\x1e" + p.mark + " " + base64.StdEncoding.EncodeToString([]byte("end")) + "\x1d"))
}

// cell runs one cell; over means that the process has ended with it.
func (p *fakeProcess) cell(frame []byte) (result pool.Result, over bool) {
	p.runs.Add(1)
	defer p.ended.Add(1)
	head, code, _ := bytes.Cut(frame, []byte("\n"))
	fields := strings.Fields(string(head))
	if size, err := strconv.Atoi(fields[2]); err != nil || size != len(code) {
		panic(fmt.Sprintf("a cell with %q and %d bytes", head, len(code)))
	}
	p.mark = fields[0]
	if string(code) != "dies before" {
		p.say("begin")
	}
	word, name, _ := strings.Cut(string(code), " ")
	switch word {
	case "print":
		p.in.Stdout([]byte("a \x1e"))
		p.say("display", "text/plain", "fig", "image/png", "\x89PNG", "application/x-evil", "x")
		p.in.Stdout([]byte("b\n"))
		p.say("result", "text/plain", "'\xff'")
		p.in.Stderr([]byte("warned\n"))
	case "raise":
		p.say("error", "ValueError", "no", "Traceback\nValueError: no")
	case "import":
		p.say("error", "ModuleNotFoundError", "No module named '"+name+"'", "Traceback (most recent call last):\nModuleNotFoundError: No module named '"+name+"'")
	case "damaged":
		p.in.Stdout([]byte("\x1e" + p.mark + " !!!\x1d"))
		p.say("nonsense")
		p.say("result", "text/plain")
		p.in.Stdout([]byte("\x1e" + p.mark + " aa"))
		p.say("display", "text/plain", "after a broken one")
		p.in.Stderr([]byte("\x1e" + p.mark + " aa\x1d"))
	case "set":
		p.names[name] = true
	case "get":
		p.in.Stdout(fmt.Appendf(nil, "%s: %t\n", name, p.names[name]))
	case "block":
		select {
		case told := <-p.in.Interrupt:
			told(true)
			p.say("error", "KeyboardInterrupt", "", "Traceback\nKeyboardInterrupt")
		case <-p.ctx.Done():
			return result, true
		}
	case "deaf":
		for {
			select {
			case told := <-p.in.Interrupt:
				told(false)
				p.tell("interrupt")
			case <-p.ctx.Done():
				return result, true
			}
		}
	case "late":
		p.end()
		p.in.Stdout([]byte("late\nunfinished"))
		p.say("display", "text/plain", "late, too")
		return result, false
	case "dies": // "before" the driver has begun the cell, or "after" the cell has ended
		if name == "after" {
			p.end()
		}
		return pool.Result{Status: pool.StatusKilled, ExitCode: 137}, true
	case "flood":
		for range 32 {
			p.say("display", "text/html", strings.Repeat("x", 180_000))
		}
	case "timeout", "memory_limit", "output_limit", "killed", "error":
		return pool.Result{Status: pool.Status(word), ExitCode: 3}, true
	}
	p.end()
	return result, false
}
