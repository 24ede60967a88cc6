package jupyter

import (
	"encoding/json"
	"fmt"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// serve answers one request of a client. It queues a cell and does not wait for it.
func (k *kernel) serve(s *socket, m *message) {
	channel := channelShell
	if m.Channel == channelControl {
		channel = channelControl
	}
	if m.Type == "execute_request" {
		k.serveExecute(s, m)
		return
	}
	answer, known := answers[m.Type]
	if !known {
		return // like other kernels, ignore requests of unknown types
	}
	k.publish(m.Header, "status", state("busy"))
	content := answer(k, m.Content)
	if content["status"] == nil {
		content["status"] = "ok"
	}
	k.reply(s, channel, m.Header, m.Type[:len(m.Type)-len("request")]+"reply", content)
	k.publish(m.Header, "status", state("idle"))
	if m.Type != "shutdown_request" {
		return
	}
	if content["restart"] == true {
		k.restart()
		return
	}
	k.front.remove(k, "the kernel was shut down")
}

// answers maps the type of each request that is answered at once to the function that returns the content of the reply.
var answers = map[string]func(*kernel, json.RawMessage) map[string]any{
	"kernel_info_request": (*kernel).info,
	"interrupt_request": func(k *kernel, _ json.RawMessage) map[string]any {
		k.interrupt()
		return map[string]any{}
	},
	"shutdown_request": func(_ *kernel, content json.RawMessage) map[string]any {
		var asked struct {
			Restart bool `json:"restart"`
		}
		_ = json.Unmarshal(content, &asked)
		return map[string]any{"restart": asked.Restart}
	},
	"comm_info_request":   fixed("comms", map[string]any{}),
	"history_request":     fixed("history", []any{}),
	"is_complete_request": fixed("status", "unknown"),
	"complete_request": func(_ *kernel, content json.RawMessage) map[string]any {
		var asked struct {
			Cursor int `json:"cursor_pos"`
		}
		_ = json.Unmarshal(content, &asked)
		return map[string]any{"matches": []any{}, "cursor_start": asked.Cursor, "cursor_end": asked.Cursor, "metadata": map[string]any{}}
	},
	"inspect_request": func(*kernel, json.RawMessage) map[string]any {
		return map[string]any{"found": false, "data": map[string]any{}, "metadata": map[string]any{}}
	},
}

func fixed(name string, value any) func(*kernel, json.RawMessage) map[string]any {
	return func(*kernel, json.RawMessage) map[string]any { return map[string]any{name: value} }
}

// info returns the content of a kernel_info_reply.
func (k *kernel) info(json.RawMessage) map[string]any {
	python := k.front.o.Python
	return map[string]any{
		"protocol_version":       "5.3",
		"implementation":         "python-sandbox",
		"implementation_version": operation.Version(),
		"banner": fmt.Sprintf("Python %s in a sandbox. Names, imports and files are kept from cell to cell until the kernel ends; "+
			"then they are gone. There is no network and no input().", python),
		"debugger":   false,
		"help_links": []any{},
		"language_info": map[string]any{
			"name": "python", "version": python, "mimetype": "text/x-python", "file_extension": ".py",
			"pygments_lexer": "ipython3", "nbconvert_exporter": "python",
			"codemirror_mode": map[string]any{"name": "ipython", "version": 3},
		},
	}
}

// serveExecute queues a cell. A request that cannot be queued is answered like a cell that has failed.
func (k *kernel) serveExecute(s *socket, m *message) {
	c := &cell{parent: m.Header, from: s}
	var refused string
	if json.Unmarshal(m.Content, &c.executeContent) != nil {
		refused = `the content of an execute_request must be an object with the source as a string in "code"`
	} else if len(c.Code) > operation.MaxCodeBytes {
		refused = "code " + operation.CodeRule // refused here, so that it takes no memory in the queue
	} else {
		refused = k.enqueue(c)
	}
	if refused == "" {
		return
	}
	k.publish(c.parent, "status", state("busy"))
	defer k.publish(c.parent, "status", state("idle"))
	failure := &cellFailure{"SandboxError", refused, []string{"SandboxError: " + refused}}
	k.publish(c.parent, "error", failure)
	k.replyFailure(c, failure, 0)
}
