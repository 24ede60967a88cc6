package mcpserver

import (
	"encoding/json"
	"mime"
	"net/http"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// envelope is what the front must know about a message. IDs and versions are looked at, never trusted.
type envelope struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Method  string          `json:"method"`
	Params  struct {
		Meta struct {
			Version string `json:"io.modelcontextprotocol/protocolVersion"`
		} `json:"_meta"`
	} `json:"params"`

	Result json.RawMessage `json:"result"`

	malformed bool // not of this shape
	broken    bool // not even JSON
}

// wantsAnswer says whether mcp-go will answer the message.
func (m *envelope) wantsAnswer() bool {
	if m.malformed {
		return !m.broken // refused before it becomes a message
	}
	null := func(v json.RawMessage) bool { return len(v) == 0 || string(v) == "null" }
	return m.Version != "2.0" || !null(m.ID) && null(m.Result)
}

// readMessage checks the media type and the size, and puts the body back for mcp-go. The caller frees the body when mcp-go is done.
func (f *Front) readMessage(w http.ResponseWriter, r *http.Request) (envelope, *edge.Body, bool) {
	var m envelope
	// Any other type can be posted by a web page without asking first.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, metrics.KindInvalid, "MCP messages are sent with Content-Type: application/json")
		return m, nil, false
	}
	body, refused := f.o.Bodies.Read(w, r)
	if refused != nil {
		edge.WriteProblem(w, refused)
		return m, nil, false
	}
	m.malformed = json.Unmarshal(body.Bytes(), &m) != nil
	m.broken = m.malformed && !json.Valid(body.Bytes())
	body.Replace(r)
	return m, body, true
}
