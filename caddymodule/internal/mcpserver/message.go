package mcpserver

import (
	"encoding/json"
	"mime"
	"net/http"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// envelope holds the fields of a JSON-RPC message that the front needs before it hands the message to mcp-go. They are what the
// client says, and not checked.
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

	malformed bool // the message does not decode into these fields
	broken    bool // it is not JSON
}

// wantsAnswer reports whether mcp-go will answer the message on the event stream of its SSE session.
func (m *envelope) wantsAnswer() bool {
	if m.malformed {
		return !m.broken // mcp-go refuses what is not JSON in the answer to the POST
	}
	null := func(v json.RawMessage) bool { return len(v) == 0 || string(v) == "null" }
	return m.Version != "2.0" || !null(m.ID) && null(m.Result)
}

// readMessage reads and decodes the message in the body of r, and puts the body back for mcp-go. The caller must free the body when
// mcp-go is done. When the media type or the size is refused, readMessage has answered and returns false.
func (f *Front) readMessage(w http.ResponseWriter, r *http.Request) (envelope, *edge.Body, bool) {
	var m envelope
	// Web pages of other origins can post text/plain and forms without a CORS preflight, so only JSON is accepted.
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
