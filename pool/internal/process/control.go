package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxMessage bounds a message on a control socket, in bytes.
const MaxMessage = 1 << 13

// ParseFailure returns the error in the JSON message of a process that could not get ready: a *StepError, or ErrProtocol for another
// message.
func ParseFailure(packet []byte) error {
	var m struct{ Event, Step, Error string }
	if json.Unmarshal(packet, &m) != nil || m.Event != "failed" {
		return ErrProtocol
	}
	return &StepError{m.Step, m.Error}
}

// Control is Caddy's end of a control socket. Write may be called concurrently; Read and Word by one goroutine at a time.
type Control struct {
	Conn    *net.UnixConn
	scratch [MaxMessage]byte // holds the packet that Read returns
}

// NewControl returns Caddy's end and the other one, for a child. The caller closes both.
func NewControl() (*Control, *os.File, error) {
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
	return &Control{Conn: conn.(*net.UnixConn)}, theirs, nil
}

// Write sends one packet with descriptors beside it.
func (c *Control) Write(data []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err := c.Conn.WriteMsgUnix(data, rights, nil)
	return err
}

// Read waits for the next packet, which is valid until the next call, and returns it with the descriptor that came along, or -1. The caller
// closes that. Further descriptors in the packet are closed.
func (c *Control) Read() ([]byte, int, error) {
	var oob [24]byte // for one descriptor; the alignment leaves room for a second one
	n, oobn, flags, _, err := c.Conn.ReadMsgUnix(c.scratch[:], oob[:])
	if errors.Is(err, unix.ECONNRESET) {
		// The other side has ended without reading all that was sent. The kernel reports that once, before the packets that it had sent.
		n, oobn, flags, _, err = c.Conn.ReadMsgUnix(c.scratch[:], oob[:])
	}
	fd := -1
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) > 0 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) > 0 {
			fd = fds[0]
			CloseAll(fds[1:])
		}
	}
	if err == nil && flags&unix.MSG_TRUNC != 0 {
		err = errors.New("message too long")
	}
	if err != nil { // an empty packet means end of file, but may still carry a descriptor
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, -1, err
	}
	return c.scratch[:n], fd, nil
}

// Word is Read for a side that sends no descriptors; one that comes is closed.
func (c *Control) Word() ([]byte, error) {
	word, fd, err := c.Read()
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	return word, err
}

// Close closes Caddy's end; the other side reads end of file.
func (c *Control) Close() { _ = c.Conn.Close() }

// CloseAll closes descriptors and ignores errors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// ErrProtocol means that a process has sent a message that the protocol does not allow.
var ErrProtocol = errors.New("the worker broke the protocol")
