package jupyter

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// ask runs a cell and returns the messages that answer it.
func (c *testClient) ask(code string) string {
	c.Helper()
	return strings.Join(c.answer(c.execute(code)), "\n")
}

func expectIn(t *testing.T, what, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
}

func TestJupyterKernelsKeepTheirNames(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	one, other := site.dial(site.start()), site.dial(site.start())
	one.ask("set a")
	expectIn(t, "another kernel", other.ask("get a"), "a: false")
	expectIn(t, "the same kernel", one.ask("get a"), "a: true")
	if n := site.cells.processes.Load(); n != 2 {
		t.Errorf("there have been %d processes", n)
	}
}

func TestJupyterRestart(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{Timeout: time.Minute})
	id := site.start()
	client := site.dial(id)
	client.ask("set a")
	running := client.execute("deaf")
	waitFor(t, "the cell runs", func() bool { return site.cells.runs.Load() == 2 })
	waiting := client.execute("1")
	// Requests of a connection are served in order: once this one is answered, the cell before it is queued.
	client.answer(client.send("shell", "kernel_info_request", map[string]any{}))
	for range 2 { // with a cell that runs, and without
		if status, _, _ := edgetest.Send(t, "POST", site.url+"/api/kernels/"+id+"/restart", nil, nil); status != http.StatusOK {
			t.Errorf("got %d", status)
		}
		if began, ended := site.cells.processes.Load(), site.cells.processesEnded.Load(); began != ended {
			t.Errorf("%d processes began, %d have ended", began, ended)
		}
	}
	// Either of the two may be answered first.
	got := strings.Join(client.answersOf(running, waiting), "\n")
	expectIn(t, "what ran and waited", got, `"evalue":"the execution was interrupted"`, `"status":"aborted"`)
	got = client.ask("get a")
	expectIn(t, "after a restart", got, "a: false", `"execution_count":1`)
	if strings.Contains(got, "fresh process") {
		t.Errorf("a restart that was asked for is told: %s", got)
	}
}

// answersOf returns the messages that answer the requests, until each has a reply.
func (c *testClient) answersOf(requests ...string) (lines []string) {
	c.Helper()
	for replies := 0; replies < len(requests); {
		m, err := c.read()
		if err != nil {
			c.Fatal(err)
		}
		if slices.ContainsFunc(requests, func(id string) bool { return strings.Contains(string(m.Parent), id) }) {
			lines = append(lines, string(m.Content))
			if m.Channel != "iopub" {
				replies++
			}
		}
	}
	return lines
}

func TestJupyterInterrupts(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	client := site.dial(site.start())
	interrupt := func() { client.send("control", "interrupt_request", map[string]any{}) }
	interrupt() // nothing runs
	client.ask("set a")
	for code, wants := range map[string][]string{
		"block": {`"ename":"KeyboardInterrupt","evalue":"","traceback":["Traceback"`, `"status":"error"`},
	} {
		runs := site.cells.runs.Load()
		request := client.execute(code)
		waitFor(t, "the cell runs", func() bool { return site.cells.runs.Load() > runs })
		interrupt()
		expectIn(t, code, strings.Join(client.answer(request), "\n"), wants...)
		interrupt()
	}
	expectIn(t, "names after an interrupt", client.ask("get a"), "a: true", `"status":"ok"`)
	request := client.execute("deaf")
	waitFor(t, "the cell runs", func() bool { return site.cells.runs.Load() == 4 })
	interrupt()
	expectIn(t, "a cell that goes on", strings.Join(client.answer(request), "\n"),
		`"ename":"KeyboardInterrupt","evalue":"the process was ended, since its cell went on after an interrupt; the names`)
	expectIn(t, "names after that", client.ask("get a"), "[This cell runs in a fresh process: the last one was ended, since", "a: false", `"status":"ok"`)
	if slices.Contains(site.cells.told, "an interrupt between cells") {
		t.Error("an interrupt came between cells")
	}
}

// When the process has ended between two cells, the second one loses the names, but runs.
func TestJupyterProcessesThatEnd(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	client := site.dial(site.start())
	client.ask("set a")
	client.ask("dies after")
	waitFor(t, "the process ends", func() bool { return site.cells.processesEnded.Load() == 1 })
	expectIn(t, "the next cell", client.ask("get a"), "the last one was ended by a signal, exit code 137, and the names", "a: false", `"status":"ok"`)
	// The process dies before the cell has begun, so the cell is run again in a fresh process, but only once.
	expectIn(t, "a cell that never begins", client.ask("dies before"), "fresh process", `"ename":"ProcessKilled"`)
	site.cells.generation.Store(-1)
	expectIn(t, "no worker", client.ask("1"), `"ename":"SandboxError","evalue":"too many requests`)
	site.cells.generation.Store(0)
	expectIn(t, "the next", client.ask("get a"), "a: false", `"status":"ok"`)
	if want := []string{"ok", "ok", "ok", "killed", "queue_full", "ok"}; !slices.Equal(site.cells.told, want) {
		t.Errorf("logs and metrics were told %q, not %q", site.cells.told, want)
	}
}

// Output that a thread writes after its cell has ended belongs to that cell, and is shown at the latest when the next cell begins.
func TestJupyterLateOutput(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	client := site.dial(site.start())
	request := client.execute("late")
	var late []string
	for len(late) < 3 {
		if len(late) == 2 {
			client.execute("1")
		}
		m, err := client.read()
		if err != nil {
			t.Fatal(err, late)
		}
		if strings.Contains(string(m.Parent), request) && (m.Type == "stream" || m.Type == "display_data") {
			late = append(late, string(m.Content))
		}
	}
	expectIn(t, "late", strings.Join(late, "\n"), `"text":"late\n"`, `"text":"unfinished"`, `{"text/plain":"late, too"}`)
}

func TestJupyterSlots(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{Slots: NewSlots(5)}) // 2 slots
	ids := []string{site.start(), site.start(), site.start(), site.start()}
	one := site.dial(ids[0])
	one.ask("set a")
	two := site.dial(ids[1])
	two.ask("set a")
	three := site.dial(ids[2])
	expectIn(t, "beyond the bound", three.ask("1"), `"evalue":"2 kernels have a process already, the most at a time, and all are in use: delete a kernel`)
	expectIn(t, "who has one", one.ask("get a"), "a: true")

	_ = one.conn.CloseNow()
	waitFor(t, "it has left", func() bool { return site.front.kernel(ids[0]).model().Connections == 0 })
	expectIn(t, "beside an idle one", three.ask("set a"), `"status":"ok"`)
	one = site.dial(ids[0])
	_ = two.conn.CloseNow()
	waitFor(t, "it has left", func() bool { return site.front.kernel(ids[1]).model().Connections == 0 })
	expectIn(t, "who had to make room", one.ask("get a"), "the last one was ended to make room for another kernel", "a: false")

	// A kernel that waits gets the next slot that becomes free.
	four := site.dial(ids[3])
	site.front.o.AcquireTimeout = time.Minute
	request := four.execute("1")
	waitFor(t, "it waits", func() bool { return site.front.o.Slots.waiting.Load() == 1 })
	_ = three.conn.CloseNow()
	expectIn(t, "who waited", strings.Join(four.answer(request), "\n"), `"status":"ok"`)
	five := site.dial(site.start())
	request = five.execute("1")
	waitFor(t, "it waits", func() bool { return site.front.o.Slots.waiting.Load() == 1 })
	if status, _, _ := edgetest.Send(t, "DELETE", site.url+"/api/kernels/"+ids[0], nil, nil); status != http.StatusNoContent {
		t.Errorf("got %d", status)
	}
	expectIn(t, "who waited for a deletion", strings.Join(five.answer(request), "\n"), `"status":"ok"`)
	six := site.dial(site.start())
	request = six.execute("1")
	waitFor(t, "it waits", func() bool { return site.front.o.Slots.waiting.Load() == 1 })
	six.send("control", "interrupt_request", map[string]any{})
	expectIn(t, "who gave up", strings.Join(six.answer(request), "\n"), `"ename":"KeyboardInterrupt"`)
}

// Fronts of one pool share its slots: idle kernels of one front do not keep those of another from running.
func TestJupyterIdleKernelsGiveWayToOtherSites(t *testing.T) {
	t.Parallel()
	slots := NewSlots(5) // 2 slots
	greedy, other := newSite(t, Options{Slots: slots}), newSite(t, Options{Slots: slots})
	first, second := greedy.start(), greedy.start()
	leave := func(c *testClient, id string) {
		_ = c.conn.CloseNow()
		waitFor(t, "it has left", func() bool { return greedy.front.kernel(id).model().Connections == 0 })
	}
	for _, id := range []string{first, second} {
		client := greedy.dial(id)
		client.ask("set a")
		if id == first {
			leave(client, id)
		}
	}
	client := other.dial(other.start())
	expectIn(t, "beside an idle kernel of another site", client.ask("set b"), `"status":"ok"`)
	expectIn(t, "beside kernels in use", other.dial(other.start()).ask("1"), "2 kernels have a process already, the most at a time, and all are in use")
	expectIn(t, "who is connected", client.ask("get b"), "b: true")

	// The kernels of a front that is closed are no longer in Slots, and their slots are free.
	greedy.front.Close()
	expectIn(t, "after the other site has gone", other.dial(other.start()).ask("1"), `"status":"ok"`)
	if n := len(slots.kernels()); n != len(other.front.list()) {
		t.Errorf("%d kernels are known, the site has %d", n, len(other.front.list()))
	}
}

func TestJupyterHints(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	generation := 1
	site.cells.generation.Store(1)
	packages := (&operation.Installs{}).KernelHints(func() int { return generation })
	site.front.o.Hint = func(code, traceback string, generation int) string {
		return (&operation.Executions{}).HintOnCell(code, traceback, packages(generation))
	}
	client := site.dial(site.start())
	expectIn(t, "as it began", client.ask("import numpy"), "The module numpy is not installed, and this server does not install packages")
	generation = 2
	expectIn(t, "after an install", client.ask("import numpy"), "restart the kernel, then run the code again")
	expectIn(t, "what is no package", client.ask("import os"), `"traceback":["Traceback (most recent call last):","ModuleNotFoundError: No module named 'os'"]`)
}
