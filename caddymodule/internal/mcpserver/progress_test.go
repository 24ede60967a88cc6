package mcpserver

import (
	"sync"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
)

// A client that sends a progress token gets notifications with growing progress while its call runs, and none after the answer.
func TestMCPProgressOfARun(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"sse", "streamable"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, &fakeExecutor{}, Options{runNotes: 50 * time.Millisecond})
			c := b.dial(transport)
			var mu sync.Mutex
			var progress []float64
			var answered, late bool
			c.OnNotification(func(n mcp.JSONRPCNotification) {
				mu.Lock()
				defer mu.Unlock()
				if n.Method != "notifications/progress" || n.Params.AdditionalFields["progressToken"] != "mine" {
					t.Errorf("got %+v", n)
				}
				done, _ := n.Params.AdditionalFields["progress"].(float64)
				progress = append(progress, done)
				late = late || answered
			})
			call := func(code string, meta *mcp.Meta) {
				t.Helper()
				req := mcp.CallToolRequest{}
				req.Params.Name, req.Params.Arguments, req.Params.Meta = "execute_python", map[string]any{"code": code}, meta
				if _, err := c.CallTool(t.Context(), req); err != nil {
					t.Fatal(err)
				}
			}
			call("sleep 1200ms", &mcp.Meta{ProgressToken: "mine"})
			mu.Lock()
			answered = true
			got := progress
			mu.Unlock()
			if len(got) < 2 {
				t.Errorf("got %v", got)
			}
			for i, done := range got {
				if done >= 1 || i > 0 && done <= got[i-1] {
					t.Errorf("got %v", got)
				}
			}
			call("sleep 200ms", nil)
			mu.Lock()
			defer mu.Unlock()
			if late || len(progress) != len(got) {
				t.Errorf("heard of a call that did not ask, or after the answer: %v, then %v", got, progress)
			}
		})
	}
}
