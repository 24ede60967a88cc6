package caddymodule

import (
	"encoding/json"
	"fmt"
)

// serve answers one request of a client. What takes long runs elsewhere.
func (k *jupyterKernel) serve(s *jupyterSocket, m *jupyterMessage) {
	channel := channelShell
	if m.Channel == channelControl {
		channel = channelControl
	}
	if m.Type == "execute_request" {
		k.serveExecute(s, m)
		return
	}
	answer, known := jupyterAnswers[m.Type]
	if !known {
		return // as kernels do: clients send more than any kernel knows
	}
	k.publish(m.Header, "status", jupyterState("busy"))
	content := answer(k, m.Content)
	if content["status"] == nil {
		content["status"] = "ok"
	}
	k.reply(s, channel, m.Header, m.Type[:len(m.Type)-len("request")]+"reply", content)
	k.publish(m.Header, "status", jupyterState("idle"))
	if m.Type != "shutdown_request" {
		return
	}
	if content["restart"] == true {
		k.restart()
		return
	}
	k.front.remove(k, "the kernel was shut down")
}

// jupyterAnswers has what is answered at once, by the type of the request.
var jupyterAnswers = map[string]func(*jupyterKernel, json.RawMessage) map[string]any{
	"kernel_info_request": (*jupyterKernel).info,
	"interrupt_request": func(k *jupyterKernel, _ json.RawMessage) map[string]any {
		k.interrupt()
		return map[string]any{}
	},
	"shutdown_request": func(_ *jupyterKernel, content json.RawMessage) map[string]any {
		var asked struct {
			Restart bool `json:"restart"`
		}
		_ = json.Unmarshal(content, &asked) //nolint:errcheck // what is not there is false
		return map[string]any{"restart": asked.Restart}
	},
	"comm_info_request":   fixed("comms", map[string]any{}),
	"history_request":     fixed("history", []any{}),
	"is_complete_request": fixed("status", "unknown"),
	"complete_request": func(_ *jupyterKernel, content json.RawMessage) map[string]any {
		var asked struct {
			Cursor int `json:"cursor_pos"`
		}
		_ = json.Unmarshal(content, &asked) //nolint:errcheck // likewise 0
		return map[string]any{"matches": []any{}, "cursor_start": asked.Cursor, "cursor_end": asked.Cursor, "metadata": map[string]any{}}
	},
	"inspect_request": func(*jupyterKernel, json.RawMessage) map[string]any {
		return map[string]any{"found": false, "data": map[string]any{}, "metadata": map[string]any{}}
	},
}

func fixed(name string, value any) func(*jupyterKernel, json.RawMessage) map[string]any {
	return func(*jupyterKernel, json.RawMessage) map[string]any { return map[string]any{name: value} }
}

// info says what the kernel is, and what it is not.
func (k *jupyterKernel) info(json.RawMessage) map[string]any {
	python := k.front.o.Python
	return map[string]any{
		"protocol_version":       "5.3",
		"implementation":         "python-sandbox",
		"implementation_version": buildVersion(),
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

// serveExecute queues a cell. What cannot run is answered as a cell that failed.
func (k *jupyterKernel) serveExecute(s *jupyterSocket, m *jupyterMessage) {
	c := &jupyterCell{parent: m.Header, from: s}
	refused := ""
	if json.Unmarshal(m.Content, &c.executeContent) != nil {
		refused = `the content of an execute_request must be an object with the source as a string in "code"`
	} else if len(c.Code) > maxCodeBytes {
		refused = "code " + codeRule // before it waits: a queue must not hold what is refused in the end
	} else {
		refused = k.enqueue(c)
	}
	if refused == "" {
		return
	}
	k.publish(c.parent, "status", jupyterState("busy"))
	defer k.publish(c.parent, "status", jupyterState("idle"))
	failure := &cellFailure{"SandboxError", refused, []string{"SandboxError: " + refused}}
	k.publish(c.parent, "error", failure)
	k.replyFailure(c, failure, 0)
}
