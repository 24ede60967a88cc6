package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// jupyterKernel is a kernel with a socket of the test's.
type jupyterKernel struct {
	*caddy
	id   string
	conn *websocket.Conn
	n    int
}

// jupyterAnswer is what came of a cell.
type jupyterAnswer struct {
	stdout, stderr, result, ename, evalue, traceback, status string
	images, count                                            int
}

// String is what the tests compare: the parts that there are.
func (a jupyterAnswer) String() string {
	text := a.status
	for name, part := range map[string]string{"out": a.stdout, "err": a.stderr} {
		if part != "" {
			text += fmt.Sprintf(" %s %q", name, part)
		}
	}
	return fmt.Sprintf("%s %s %s: %s\n%s", text, a.result, a.ename, a.evalue, a.traceback)
}

func (c *caddy) newKernel() *jupyterKernel {
	c.Helper()
	resp, err := c.client.Post(c.url+"/jupyter/api/kernels", "application/json", nil)
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	k := &jupyterKernel{caddy: c}
	var model struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&model); err != nil || model.ID == "" {
		c.Fatal(resp.Status, err)
	}
	k.id = model.ID
	k.connect()
	return k
}

func (k *jupyterKernel) connect() {
	k.Helper()
	conn, _, err := websocket.Dial(context.Background(), k.url+"/jupyter/api/kernels/"+k.id+"/channels", nil)
	if err != nil {
		k.Fatal(err)
	}
	conn.SetReadLimit(-1)
	k.Cleanup(func() { _ = conn.CloseNow() })
	k.conn = conn
}

// request asks for something of the kernel over HTTP.
func (k *jupyterKernel) request(method, what string) {
	k.Helper()
	req, err := http.NewRequest(method, k.url+"/jupyter/api/kernels/"+k.id+what, nil)
	if err != nil {
		k.Fatal(err)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		k.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= 300 {
		k.Errorf("%s %s: got %s", method, what, resp.Status)
	}
}

// send starts a cell and returns its id.
func (k *jupyterKernel) send(code string) string {
	k.Helper()
	k.n++
	id := fmt.Sprintf("%p-%d", k, k.n)
	frame, err := json.Marshal(map[string]any{"channel": "shell", "header": map[string]string{"msg_id": id, "msg_type": "execute_request"},
		"content": map[string]string{"code": code}})
	if err != nil {
		k.Fatal(err)
	}
	if err := k.conn.Write(context.Background(), websocket.MessageText, frame); err != nil {
		k.Fatal(err)
	}
	return id
}

// answer collects what comes of a cell until it is over, or until its standard output ends with a text.
func (k *jupyterKernel) answer(id, until string) (a jupyterAnswer) {
	k.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	for replied, idle := false, false; !replied || !idle; {
		_, frame, err := k.conn.Read(ctx)
		if err != nil {
			k.Fatalf("%v, after %s", err, a)
		}
		var m struct {
			Type    string                  `json:"msg_type"`
			Parent  struct{ Msg_id string } `json:"parent_header"` //nolint:revive // as it is spelled
			Content struct {
				Name, Text, Status, Ename, Evalue string
				Traceback                         []string
				Data                              map[string]string
				State                             string `json:"execution_state"`
				Count                             int    `json:"execution_count"`
			}
		}
		if err := json.Unmarshal(frame, &m); err != nil {
			k.Fatal(err)
		}
		if m.Parent.Msg_id != id {
			continue
		}
		switch m.Type {
		case "stream":
			if m.Content.Name == "stdout" {
				a.stdout += m.Content.Text
			} else {
				a.stderr += m.Content.Text
			}
		case "execute_result":
			a.result = m.Content.Data["text/plain"]
		case "display_data":
			if m.Content.Data["image/png"] != "" {
				a.images++
			}
		case "error":
			a.ename, a.evalue, a.traceback = m.Content.Ename, m.Content.Evalue, strings.Join(m.Content.Traceback, "\n")
		case "execute_reply":
			replied, a.status, a.count = true, m.Content.Status, m.Content.Count
		case "status":
			idle = m.Content.State == "idle"
		}
		if until != "" && strings.HasSuffix(a.stdout, until) {
			return a
		}
	}
	return a
}

func (k *jupyterKernel) cell(code string) jupyterAnswer {
	k.Helper()
	return k.answer(k.send(code), "")
}

// begin starts a cell and returns its id once it has printed "running".
func (k *jupyterKernel) begin(code string) string {
	k.Helper()
	id := k.send(code)
	k.answer(id, "running\n")
	return id
}

// expect runs a cell and looks for texts in all that came of it.
func (k *jupyterKernel) expect(code string, wants ...string) jupyterAnswer {
	k.Helper()
	a := k.cell(code)
	k.check(code, a, wants...)
	return a
}

func (k *jupyterKernel) check(code string, a jupyterAnswer, wants ...string) {
	k.Helper()
	for _, want := range wants {
		if !strings.Contains(a.String(), want) {
			k.Errorf("%q: got %s, want %q", code, a, want)
		}
	}
}
