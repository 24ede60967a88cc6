package jupyter

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
)

// testSite serves a front on a loopback listener.
type testSite struct {
	*testing.T
	url   string
	front *Front
	cells *fakeCells
}

func newSite(t *testing.T, o Options) *testSite {
	t.Helper()
	o.Bodies, o.Output, o.Timeout = edge.NewBodies(64<<10, 1<<20, 0), 1000, time.Second
	o.interruptGrace = cmp.Or(o.interruptGrace, 100*time.Millisecond)
	o.AcquireTimeout = cmp.Or(o.AcquireTimeout, 50*time.Millisecond)
	if o.Slots == nil {
		o.Slots = NewSlots(16)
	}
	cells := &fakeCells{}
	front := New(cells, o)
	rs := edge.Routes{}
	front.AddTo(rs)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !rs.Serve(w, r, zap.NewNop()) {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(func() {
		front.Close()
		site.Close()
		if n := front.unsent.Load(); n != 0 {
			t.Errorf("%d bytes are said to wait", n)
		}
		if p := front.o.Slots; len(p.taken) != 0 || p.waiting.Load() != 0 || p.ending.Load() != 0 {
			t.Errorf("slots are taken: %d, %d wait, %d end", len(p.taken), p.waiting.Load(), p.ending.Load())
		}
		if began, ended := cells.processes.Load(), cells.processesEnded.Load(); began != ended {
			t.Errorf("%d processes began, %d have ended", began, ended)
		}
	})
	return &testSite{t, site.URL + "/jupyter", front, cells}
}

func (s *testSite) start() string {
	s.Helper()
	status, body, _ := edgetest.Send(s.T, "POST", s.url+"/api/kernels", nil, nil)
	var model kernelModel
	if err := json.Unmarshal([]byte(body), &model); err != nil || status != http.StatusCreated {
		s.Fatalf("%d %s", status, body)
	}
	return model.ID
}

// testClient is a client with one WebSocket.
type testClient struct {
	*testSite
	conn *websocket.Conn
	n    int
}

func (s *testSite) dial(id string, protocols ...string) *testClient {
	s.Helper()
	conn, _, err := websocket.Dial(s.Context(), s.url+"/api/kernels/"+id+"/channels?session_id=x", &websocket.DialOptions{Subprotocols: protocols})
	if err != nil {
		s.Fatal(err)
	}
	conn.SetReadLimit(-1)
	s.Cleanup(func() { _ = conn.CloseNow() })
	return &testClient{s, conn, 0}
}

func (c *testClient) send(channel, kind string, content any) string {
	c.Helper()
	c.n++
	id := fmt.Sprintf("%p-%d", c, c.n)
	m := newMessage("x", channel, kind, nil, content)
	m.Header = mustJSON(header{ID: id, Type: kind})
	kindOf, frame := websocket.MessageText, m.encodeText()
	if c.conn.Subprotocol() == jupyterV1 {
		kindOf, frame = websocket.MessageBinary, m.encodeV1()
	}
	if err := c.conn.Write(c.Context(), kindOf, frame); err != nil {
		c.Error(err)
	}
	return id
}

func (c *testClient) execute(code string) string {
	return c.send("shell", "execute_request", map[string]any{"code": code})
}

func (c *testClient) read() (*message, error) {
	ctx, cancel := context.WithTimeout(c.Context(), 10*time.Second)
	defer cancel()
	kind, frame, err := c.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	if c.conn.Subprotocol() == jupyterV1 {
		parts, err := splitV1(frame)
		if err != nil || kind != websocket.MessageBinary {
			c.Fatalf("%v %v", kind, err)
		}
		frame = mustJSON(message{Channel: string(parts[0]), Header: parts[1], Parent: parts[2], Metadata: parts[3], Content: parts[4]})
	}
	m := new(message)
	if err := json.Unmarshal(frame, m); err != nil {
		c.Fatal(err)
	}
	var header header
	if err := json.Unmarshal(m.Header, &header); err != nil || c.conn.Subprotocol() == "" && (header.ID != m.ID || header.Type != m.Type) {
		c.Fatalf("%s: %v", frame, err)
	}
	m.Type = header.Type
	return m, nil
}

// answer returns the messages that answer a request, until the kernel has replied and is idle again.
func (c *testClient) answer(request string) []string {
	c.Helper()
	var lines []string
	for replied, idle := false, false; !replied || !idle; {
		m, err := c.read()
		if err != nil {
			c.Fatal(err, lines)
		}
		var parent header
		if json.Unmarshal(m.Parent, &parent) != nil || parent.ID != request {
			continue
		}
		replied = replied || m.Channel != "iopub"
		idle = idle || m.Type == "status" && strings.Contains(string(m.Content), "idle")
		lines = append(lines, m.Channel+" "+m.Type+" "+string(m.Content))
	}
	return lines
}

// closed waits until the server closes the connection, and returns the code and the reason of its close frame.
func (c *testClient) closed() (websocket.StatusCode, string) {
	c.Helper()
	for {
		if _, err := c.read(); err != nil {
			e, ok := errors.AsType[websocket.CloseError](err)
			if !ok {
				c.Fatal(err)
			}
			return e.Code, e.Reason
		}
	}
}

func TestJupyterREST(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{maxKernels: 2})
	id := site.start()
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/api", "", 200, `{"version":"`},
		{"GET", "/api/status", "", 200, `"kernels":1`},
		{"GET", "/api/kernelspecs", "", 200, `"default":"python3"`},
		{"GET", "/api/kernels", "", 200, `[{"id":"` + id},
		{"GET", "/api/kernels/" + id, "", 200, `"execution_state":"idle"`},
		{"POST", "/api/kernels/" + id + "/interrupt", "", 204, ""},
		{"POST", "/api/kernels/" + id + "/restart", "", 200, id},
		{"GET", "/api/kernels/unknown", "", 404, "does not exist or has ended"},
		{"GET", "/api/kernels/unknown/channels", "", 404, "does not exist or has ended"},
		{"GET", "/api/kernels/" + id + "/unknown", "", 404, ""},
		{"GET", "/api/contents", "", 404, "there are api"},
		{"GET", "/apis", "", 404, ""},
		{"GET", "/login", "", 404, "choose token"},
		{"PUT", "/api/kernels", "", 405, "takes"},
		{"DELETE", "/api/kernels", "", 405, "GET, HEAD, POST"},
		{"GET", "/api/kernels/" + id + "/channels", "", 426, ""},
		{"POST", "/api/kernels", "{", 400, "not JSON"},
		{"POST", "/api/kernels", strings.Repeat(" ", 65<<10), 413, "larger"},
		{"POST", "/api/kernels", `{"name":"julia"}`, 422, "no other kernel"},
		{"POST", "/api/kernels", `{"name":"python3","path":null}`, 201, "id"},
		{"POST", "/api/kernels", "", 503, "2 kernels exist already"},
		{"DELETE", "/api/kernels/" + id, "", 204, ""},
		{"DELETE", "/api/kernels/" + id, "", 404, ""},
		{"POST", "/api/kernels", "", 201, ""},
	} {
		status, body, header := edgetest.Send(t, c.method, site.url+c.path, strings.NewReader(c.body), nil)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: got %d %s", c.method, c.path, status, body)
		}
		if status >= 400 && status != 426 {
			edgetest.CheckProblem(t, status, body, header)
		}
	}
}

func TestJupyterToken(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{Token: "s3cret"})
	for _, c := range []struct {
		query, header string
		status        int
	}{
		{"", "", 401},
		{"?token=wrong", "", 401},
		{"?token=", "token ", 401},
		{"", "Bearer wrong", 401},
		{"", "Basic s3cret", 401},
		{"?token=s3cret", "", 200},
		{"?token=s3cret", "Basic x", 200}, // that header was for a proxy in front
		{"", "token s3cret", 200},
		{"", "bearer s3cret", 200},
	} {
		headers := map[string]string{}
		if c.header != "" {
			headers["Authorization"] = c.header
		}
		status, body, _ := edgetest.Send(t, "GET", site.url+"/api/kernels"+c.query, nil, headers)
		if status != c.status || strings.Contains(body, "s3cret") {
			t.Errorf("%q %q: got %d %s", c.query, c.header, status, body)
		}
	}
}

func TestJupyterRefusesOtherOrigins(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	for _, path := range []string{"/api/kernels", "/api/kernels/" + site.start() + "/channels"} {
		if status, _, _ := edgetest.Send(t, "GET", site.url+path, nil, map[string]string{"Origin": "https://evil.example"}); status != http.StatusForbidden {
			t.Errorf("%s: got %d", path, status)
		}
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

func TestJupyterBounds(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	id := site.start()
	clients := make([]*testClient, maxSockets)
	for i := range clients {
		clients[i] = site.dial(id)
	}
	waitFor(t, "all have joined", func() bool { return site.front.list()[0].model().Connections == maxSockets })
	if code, reason := site.dial(id).closed(); code != websocket.StatusTryAgainLater || !strings.Contains(reason, "8 connections") {
		t.Errorf("got %v %q", code, reason)
	}
	clients[0].execute("block")
	waitFor(t, "the cell runs", func() bool { return site.cells.runs.Load() == 1 })
	for range maxQueue {
		clients[0].execute("1")
	}
	if got := strings.Join(clients[0].answer(clients[0].execute("1")), "\n"); !strings.Contains(got, "8 cells wait") {
		t.Errorf("got %s", got)
	}
}

func TestJupyterIdleKernelsEnd(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{idle: 40 * time.Millisecond})
	client := site.dial(site.start())
	if _, reason := client.closed(); !strings.Contains(reason, "nobody has used it for 40ms") {
		t.Errorf("got %q", reason)
	}
	if len(site.front.list()) != 0 {
		t.Error("it is still there")
	}
}

func TestJupyterClose(t *testing.T) {
	t.Parallel()
	site := newSite(t, Options{})
	client := site.dial(site.start())
	client.execute("block")
	waitFor(t, "the cell runs", func() bool { return site.cells.runs.Load() == 1 })
	done := make(chan struct{})
	go func() {
		site.front.Close()
		close(done)
	}()
	if code, reason := client.closed(); code != websocket.StatusGoingAway || !strings.Contains(reason, "shutting down") {
		t.Errorf("got %v %q", code, reason)
	}
	<-done
	if site.cells.processesEnded.Load() != 1 {
		t.Error("the process is still there")
	}
	if status, _, _ := edgetest.Send(t, "POST", site.url+"/api/kernels", nil, nil); status != http.StatusServiceUnavailable {
		t.Errorf("got %d", status)
	}
}
