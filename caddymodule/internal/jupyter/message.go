package jupyter

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// jupyterV1 is the subprotocol that frames a message as binary parts. Clients that do not ask for it get JSON text.
const jupyterV1 = "v1.kernel.websocket.jupyter.org"

// The channels of a kernel, which share one WebSocket.
const (
	channelShell   = "shell"
	channelControl = "control"
	channelIOPub   = "iopub"
)

// maxHeader bounds a request's header, which each message of the answer repeats.
const maxHeader = 8 << 10

// message is a message of Jupyter's protocol, 5.3. The header of a request is kept as it came, since the parent of
// an answer must equal it.
type message struct {
	Header   json.RawMessage `json:"header"`
	Parent   json.RawMessage `json:"parent_header"`
	Metadata json.RawMessage `json:"metadata"`
	Content  json.RawMessage `json:"content"`
	Channel  string          `json:"channel"`

	// ID and Type repeat fields of the header, since some clients look for them here.
	ID   string `json:"msg_id"`
	Type string `json:"msg_type"`
}

type header struct {
	ID       string `json:"msg_id"`
	Type     string `json:"msg_type"`
	Username string `json:"username"`
	Session  string `json:"session"`
	Date     string `json:"date"`
	Version  string `json:"version"`
}

// newMessage makes a message that answers the request with the header parent, which may be nil. content must be encodable as JSON.
func newMessage(session, channel, kind string, parent json.RawMessage, content any) *message {
	m := &message{Channel: channel, ID: newUUID(), Type: kind, Parent: parent, Metadata: json.RawMessage("{}")}
	if len(parent) == 0 {
		m.Parent = json.RawMessage("{}")
	}
	m.Header = mustJSON(header{ID: m.ID, Type: kind, Username: "sandbox", Session: session, Date: timeText(time.Now()), Version: "5.3"})
	m.Content = mustJSON(content)
	return m
}

// mustJSON encodes values of ours and JSON that was decoded before, so it cannot fail. edge.Encode would refuse some headers of
// clients that encoding/json has accepted when it decoded them.
func mustJSON(v any) json.RawMessage {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimRight(out.Bytes(), "\n")
}

// timeText formats a time as clients expect it.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// newUUID returns a random UUID (version 4), which nobody can guess.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// encodeText frames m as JSON text, the default.
func (m *message) encodeText() []byte {
	return mustJSON(struct {
		*message
		Buffers []string `json:"buffers"`
	}{m, []string{}})
}

// encodeV1 frames m as parts: their number and offsets, little-endian, then the channel and the four parts.
func (m *message) encodeV1() []byte {
	parts := [][]byte{[]byte(m.Channel), m.Header, m.Parent, m.Metadata, m.Content}
	offset := 8 * (1 + len(parts) + 1)
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(parts)+1))
	for _, part := range parts {
		out = binary.LittleEndian.AppendUint64(out, uint64(offset))
		offset += len(part)
	}
	out = binary.LittleEndian.AppendUint64(out, uint64(offset))
	for _, part := range parts {
		out = append(out, part...)
	}
	return out
}

// decodeJupyter decodes a message of a client. Its error is a sentence for the developer of the client.
func decodeJupyter(frame []byte, v1, binaryFrame bool) (*message, error) {
	m := new(message)
	switch {
	case v1 && binaryFrame:
		parts, err := splitV1(frame)
		if err != nil {
			return nil, err
		}
		m.Channel, m.Header, m.Content = string(parts[0]), parts[1], parts[4]
	case binaryFrame:
		part, err := firstBuffer(frame)
		if err != nil {
			return nil, err
		}
		frame = part
		fallthrough
	default:
		if err := json.Unmarshal(frame, m); err != nil {
			return nil, errors.New("the message is not a JSON object of Jupyter's protocol")
		}
	}
	var header header
	if len(m.Header) > maxHeader {
		return nil, fmt.Errorf("the header of the message is longer than %d bytes", maxHeader)
	}
	if json.Unmarshal(m.Header, &header) != nil || header.ID == "" || header.Type == "" {
		return nil, errors.New("the message has no header with msg_id and msg_type")
	}
	m.ID, m.Type = header.ID, header.Type
	return m, nil
}

// splitV1 returns the channel and the four parts of a frame, without the buffers that may follow them.
func splitV1(frame []byte) ([][]byte, error) {
	wrong := errors.New("the message is not framed as " + jupyterV1 + " says")
	if len(frame) < 8 {
		return nil, wrong
	}
	n := binary.LittleEndian.Uint64(frame)
	if n < 6 || n > 1024 || uint64(len(frame)) < 8*(n+1) {
		return nil, wrong
	}
	offset := func(i int) uint64 { return binary.LittleEndian.Uint64(frame[8*(i+1):]) }
	parts := make([][]byte, 5)
	for i := range parts {
		from, to := offset(i), offset(i+1)
		if from > to || to > uint64(len(frame)) {
			return nil, wrong
		}
		parts[i] = frame[from:to]
	}
	if !json.Valid(parts[4]) {
		return nil, errors.New("the content of the message is not JSON")
	}
	return parts, nil
}

// firstBuffer returns the JSON of a binary frame in the default framing: the number of buffers and their offsets come first, in
// big-endian 32-bit numbers, and the first buffer is the JSON.
func firstBuffer(frame []byte) ([]byte, error) {
	wrong := errors.New("the binary message has no offsets of buffers: send JSON as text")
	if len(frame) < 8 {
		return nil, wrong
	}
	n := binary.BigEndian.Uint32(frame)
	from, to := uint64(binary.BigEndian.Uint32(frame[4:])), uint64(len(frame))
	if n > 1 && len(frame) >= 12 {
		to = uint64(binary.BigEndian.Uint32(frame[8:]))
	}
	if n < 1 || from > to || to > uint64(len(frame)) {
		return nil, wrong
	}
	return frame[from:to], nil
}
