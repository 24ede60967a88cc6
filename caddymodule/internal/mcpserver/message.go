package mcpserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

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

// readMessage checks the media type and the size, and puts the body back for mcp-go.
func (f *Front) readMessage(w http.ResponseWriter, r *http.Request) (envelope, bool) {
	var m envelope
	// Any other type can be posted by a web page without asking first.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, metrics.KindInvalid, "MCP messages are sent with Content-Type: application/json")
		return m, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, f.o.MaxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			refuse(w, http.StatusRequestEntityTooLarge, metrics.KindTooLarge, "the message is larger than the server accepts")
		} else {
			refuse(w, http.StatusBadRequest, metrics.KindMalformed, "the message could not be read to its end")
		}
		return m, false
	}
	m.malformed = json.Unmarshal(body, &m) != nil
	m.broken = m.malformed && !json.Valid(body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	return m, true
}
