package jupyter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
)

func TestJupyterCells(t *testing.T) {
	t.Parallel()
	reply := func(status string, count int) string {
		return fmt.Sprintf(`shell execute_reply {"execution_count":%d,"payload":[],"status":"%s","user_expressions":{}}`, count, status)
	}
	lost := func(why string) string {
		return `iopub stream {"name":"stderr","text":"[This cell runs in a fresh process: the last one ` + why
	}
	for _, protocol := range [][]string{nil, {jupyterV1}} {
		site := newSite(t, Options{})
		client := site.dial(site.start(), protocol...)
		for i, c := range []struct {
			code string
			want []string
		}{
			{"1", []string{reply("ok", 1)}},
			{"print", []string{
				`iopub stream {"name":"stdout","text":"a \u001e"}`,
				`iopub display_data {"data":{"image/png":"iVBORw==","text/plain":"fig"},"metadata":{},"transient":{}}`,
				`iopub stream {"name":"stdout","text":"b\n"}`,
				`iopub execute_result {"data":{"text/plain":"'` + "\ufffd" + `'"},"metadata":{},"execution_count":2}`,
				`iopub stream {"name":"stderr","text":"warned\n"}`,
				reply("ok", 2),
			}},
			{"raise", []string{`iopub error {"ename":"ValueError","evalue":"no","traceback":["Traceback","ValueError: no"]}`, `"status":"error"`}},
			{"damaged", []string{
				`iopub display_data {"data":{"text/plain":"after a broken one"}`, `5 things to show were left out`, reply("ok", 4),
			}},
			{"set a", []string{reply("ok", 5)}},
			{"get a", []string{`"text":"a: true\n"`, reply("ok", 6)}},
			{"timeout", []string{`"ename":"TimeoutError","evalue":"the process was ended after 12h0m0s, the longest`, `"status":"error"`}},
			{"memory_limit", []string{lost("was ended after 12h0m0s"), `"ename":"MemoryError"`, `"status":"error"`}},
			{"output_limit", []string{lost("used more memory than limits memory allows"), `"ename":"OutputLimitError"`, `"status":"error"`}},
			{"killed", []string{lost("wrote an absurd amount of output"), `"ename":"ProcessKilled","evalue":"the process was ended by a signal`, `"status":"error"`}},
			{"error", []string{lost("was ended by a signal, exit code 3"), `"ename":"ProcessExited","evalue":"the process ended with exit code 3; the names`, `"status":"error"`}},
			{"get a", []string{lost("ended with exit code 3"), `"text":"a: false\n"`, reply("ok", 12)}},
			{"deaf", []string{`"ename":"TimeoutError","evalue":"the code ran longer than 1s and was ended, with its process; the names`, `"status":"error"`}},
			{"block", []string{lost("was ended, since its cell went on after an interrupt"), `"traceback":["TimeoutError: the code ran longer than 1s and was interrupted`, `"status":"error"`}},
			{"1", []string{reply("ok", 15)}},
		} {
			got := client.answer(client.execute(c.code))
			frame := fmt.Sprintf(`iopub execute_input {"code":%q,"execution_count":%d}`, c.code, i+1)
			want := append([]string{`iopub status {"execution_state":"busy"}`, frame}, c.want...)
			want = append(want, `iopub status {"execution_state":"idle"}`)
			if len(got) != len(want) {
				t.Fatalf("%s: got %q", c.code, got)
			}
			for j := range want {
				if !strings.Contains(got[j], want[j]) {
					t.Errorf("%s: got %s, want %s", c.code, got[j], want[j])
				}
			}
		}
	}
}

func TestJupyterAnswers(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{Python: "3.12.1"})
	client := site.dial(site.start())
	for _, c := range []struct{ channel, kind, content, want string }{
		{"shell", "kernel_info_request", `{}`, `"version":"3.12.1"`},
		{"control", "kernel_info_request", `{}`, `control kernel_info_reply`},
		{"shell", "comm_info_request", `{}`, `{"comms":{},"status":"ok"}`},
		{"shell", "history_request", `{}`, `{"history":[],"status":"ok"}`},
		{"shell", "is_complete_request", `{"code":"("}`, `{"status":"unknown"}`},
		{"shell", "complete_request", `{"code":"pri","cursor_pos":3}`, `"cursor_end":3`},
		{"shell", "inspect_request", `null`, `"found":false`},
		{"control", "interrupt_request", `{}`, `control interrupt_reply {"status":"ok"}`},
		{"shell", "execute_request", `[1]`, `"evalue":"the content of an execute_request must be`},
		{"shell", "execute_request", `{"code":1}`, `"evalue":"the content of an execute_request must be`},
		{"shell", "execute_request", `{"code":"1","user_expressions":{"a":"b"}}`, `"user_expressions":{"a":{"status":"error"`},
		{"control", "shutdown_request", `{"restart":true}`, `{"restart":true,"status":"ok"}`},
	} {
		got := strings.Join(client.answer(client.send(c.channel, c.kind, json.RawMessage(c.content))), "\n")
		if !strings.Contains(got, c.want) {
			t.Errorf("%s %s: got %s, want %s", c.kind, c.content, got, c.want)
		}
	}
	client.send("shell", "unheard_of_request", map[string]any{}) // is not answered, and does no harm
	client.answer(client.send("control", "shutdown_request", map[string]any{}))
	if code, reason := client.closed(); code != websocket.StatusGoingAway || reason != "the kernel was shut down" {
		t.Errorf("got %v %q", code, reason)
	}
	if site.front.kernel(client.conn.Subprotocol()) != nil || len(site.front.list()) != 0 {
		t.Error("the kernel is still there")
	}
}

func TestJupyterMalformedMessages(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	garbage := bytes.Repeat([]byte{0xff}, 100)
	for name, c := range map[string]struct {
		protocol []string
		kind     websocket.MessageType
		frame    []byte
		code     websocket.StatusCode
	}{
		"no JSON":          {nil, websocket.MessageText, []byte("{"), websocket.StatusUnsupportedData},
		"no header":        {nil, websocket.MessageText, []byte("{}"), websocket.StatusUnsupportedData},
		"no object":        {nil, websocket.MessageText, []byte("[]"), websocket.StatusUnsupportedData},
		"a long header":    {nil, websocket.MessageText, []byte(`{"header":{"msg_id":"` + strings.Repeat("x", 9000) + `"}}`), websocket.StatusUnsupportedData},
		"binary garbage":   {nil, websocket.MessageBinary, garbage, websocket.StatusUnsupportedData},
		"nothing":          {nil, websocket.MessageBinary, nil, websocket.StatusUnsupportedData},
		"garbage in v1":    {[]string{jupyterV1}, websocket.MessageBinary, garbage, websocket.StatusUnsupportedData},
		"huge counts":      {[]string{jupyterV1}, websocket.MessageBinary, append([]byte{6, 0, 0, 0, 0, 0, 0, 0}, garbage...), websocket.StatusUnsupportedData},
		"too large":        {nil, websocket.MessageText, bytes.Repeat([]byte(" "), 65<<10), websocket.StatusMessageTooBig},
		"too large binary": {[]string{jupyterV1}, websocket.MessageBinary, bytes.Repeat([]byte(" "), 65<<10), websocket.StatusMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			client := site.dial(site.start(), c.protocol...)
			if err := client.conn.Write(t.Context(), c.kind, c.frame); err != nil {
				t.Fatal(err)
			}
			if code, reason := client.closed(); code != c.code || reason == "" {
				t.Errorf("got %v %q", code, reason)
			}
		})
	}
}

// A cell ends with its kernel, when it is interrupted, and when the last socket closes, but not when another one does. The process
// ends with the kernel only.
func TestJupyterEndsCells(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	id := site.start()
	first, second := site.dial(id), site.dial(id)
	running := func(client *testClient) string {
		runs := site.cells.runs.Load()
		request := client.execute("block")
		waitFor(t, "the cell runs", func() bool { return site.cells.runs.Load() > runs })
		return request
	}
	request := running(first)
	waiting := first.execute("1")
	first.send("control", "interrupt_request", map[string]any{})
	if got := strings.Join(second.answerOf(request), "\n"); !strings.Contains(got, "KeyboardInterrupt") {
		t.Errorf("the other socket heard %s", got)
	}
	if got := strings.Join(first.answer(waiting), "\n"); !strings.Contains(got, `"status":"aborted"`) {
		t.Errorf("what waited got %s", got)
	}
	first.answer(first.execute("set a"))
	ended := site.cells.ended.Load()

	running(first)
	_ = second.conn.Close(websocket.StatusNormalClosure, "")
	waitFor(t, "one socket is left", func() bool { return site.front.list()[0].model().Connections == 1 })
	if site.cells.ended.Load() != ended {
		t.Error("the cell ended with a socket that was not the last")
	}
	_ = first.conn.CloseNow()
	waitFor(t, "the cell ends with the last socket", func() bool { return site.cells.ended.Load() == ended+1 })

	third := site.dial(id)
	if got := strings.Join(third.answer(third.execute("get a")), "\n"); !strings.Contains(got, "a: true") {
		t.Errorf("who connects again gets %s", got)
	}
	running(third)
	if status, _, _ := edgetest.Send(t, "DELETE", site.url+"/api/kernels/"+id, nil, nil); status != http.StatusNoContent {
		t.Errorf("got %d", status)
	}
	waitFor(t, "the process ends with its kernel", func() bool { return site.cells.processesEnded.Load() == 1 })
	if code, reason := third.closed(); code != websocket.StatusGoingAway || reason != "the kernel was deleted" {
		t.Errorf("got %v %q", code, reason)
	}
}

// answerOf is answer for a client that has not sent the request itself, and so gets no reply.
func (c *testClient) answerOf(request string) (lines []string) {
	c.Helper()
	for {
		m, err := c.read()
		if err != nil {
			c.Fatal(err)
		}
		if !strings.Contains(string(m.Parent), request) {
			continue
		}
		if m.Channel != "iopub" {
			c.Errorf("got %s, which was for another socket", m.Type)
		}
		lines = append(lines, string(m.Content))
		if m.Type == "status" && strings.Contains(string(m.Content), "idle") {
			return lines
		}
	}
}

// A client that never reads loses its connection, so that the frames that wait for it are bounded, and delays no other client.
func TestJupyterClientThatNeverReads(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{writeTimeout: time.Minute, keepAlive: time.Minute, maxUnsent: 6 << 20})
	id := site.start()
	site.dial(id)
	other := site.dial(id)
	for i := int64(1); i < 20; i++ {
		other.answer(other.execute("flood"))
		if site.front.list()[0].model().Connections == 1 {
			break
		}
	}
	waitFor(t, "its connection ends", func() bool { return site.front.list()[0].model().Connections == 1 })
	other.answer(other.execute("1"))
}

func TestJupyterPingsEndDeadConnections(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{keepAlive: 10 * time.Millisecond, writeTimeout: 50 * time.Millisecond})
	site.dial(site.start()) // answers no ping, since it does not read
	waitFor(t, "it has joined", func() bool { return site.front.list()[0].model().Connections == 1 })
	waitFor(t, "its connection ends", func() bool { return site.front.list()[0].model().Connections == 0 })
}

// A client may queue cells and go, again and again: nothing of them is kept for as long as the front lives. It is not parallel, since it
// looks at the memory of the whole program.
func TestCellsThatNeverRunAreForgotten(t *testing.T) {
	k := newKernel(newSite(t, Options{}).front)
	k.running = &cell{interrupts: make(chan struct{}, 1)}
	gone := &socket{}
	round := func() {
		for range maxQueue {
			if refused := k.enqueue(&cell{from: gone}); refused != "" {
				t.Fatal(refused)
			}
		}
		k.leave(gone)
	}
	before := heap()
	for range 20000 {
		round()
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("%d bytes are left of %d cells", grown, 20000*maxQueue)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
