package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxMessage bounds a message on a control socket, in bytes.
const maxMessage = 1 << 13

// message is every message of a control socket; doc.go says which fields go together.
type message struct {
	Op     string `json:"op,omitempty"`
	Event  string `json:"event,omitempty"`
	ID     int    `json:"id,omitempty"`
	Worker int    `json:"worker,omitempty"`

	Step  string `json:"step,omitempty"`
	Error string `json:"error,omitempty"`

	Status      int     `json:"status,omitempty"` // as wait(2) has it
	CPUSeconds  float64 `json:"cpu_seconds,omitempty"`
	MaxRSSBytes int64   `json:"max_rss_bytes,omitempty"`
}

// control is Go's end of a control socket. Send may be called concurrently; receive by one goroutine.
type control struct {
	conn    *net.UnixConn
	scratch [maxMessage]byte // of receive
}

// newControl returns Go's end and the other side's descriptor, which the caller closes.
func newControl() (*control, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a control socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control of the child")
	conn, err := net.FileConn(ours)
	_ = ours.Close() // FileConn has a duplicate
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("making a control socket: %w", err)
	}
	return &control{conn: conn.(*net.UnixConn)}, theirs, nil
}

func (c *control) send(m any, fds ...int) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.write(data, fds)
}

// say sends a word and a number, which is all that a lane is told.
func (c *control) say(word string, number int, fds ...int) error {
	return c.write(strconv.AppendInt([]byte(word+" "), int64(number), 10), fds)
}

func (c *control) write(data []byte, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err := c.conn.WriteMsgUnix(data, rights, nil)
	return err
}

// receive returns the next message and the descriptor that came with it, or -1.
func (c *control) receive() (message, int, error) {
	var m message
	data, oob := c.scratch[:], make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := c.conn.ReadMsgUnix(data, oob)
	if err != nil {
		return m, -1, err
	}
	if n == 0 {
		return m, -1, io.EOF
	}
	fd := -1
	if oobn > 0 {
		if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) > 0 {
			if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) > 0 {
				fd = fds[0]
			}
		}
	}
	if flags&unix.MSG_TRUNC != 0 {
		return m, fd, errors.New("message too long")
	}
	if err := json.Unmarshal(data[:n], &m); err != nil {
		return m, fd, fmt.Errorf("decoding a control message: %w", err)
	}
	return m, fd, nil
}

func (c *control) close() { _ = c.conn.Close() }
