package pool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// channel is our end of the socket that a worker has until it runs user code; closedChannel is one that is not open. It is a bare
// descriptor, and for one goroutine at a time, until pollable is called for whoever has to wait: the runtime's poller would wake us
// for all that a worker says to nobody. After that it may be closed at any time. What is asked of a closed channel fails.
type channel struct {
	fd   int      // -1 for none; 0 is a descriptor like any other, and Caddy's own where it has a standard input
	file *os.File // owns the descriptor, once there is one
}

func closedChannel() channel { return channel{fd: -1} }

// newChannel returns our end, and the worker's.
func newChannel() (c channel, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return closedChannel(), -1, fmt.Errorf("making a channel: %w", err)
	}
	c.fd = pair[0]
	if _, err = unix.FcntlInt(uintptr(c.fd), unix.F_SETFL, unix.O_RDWR|unix.O_NONBLOCK); err == nil {
		// The kernel itself then says who wrote what comes (unix(7)).
		err = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	return c, pair[1], err
}

// pollable leaves the waiting to the runtime.
func (c *channel) pollable() *os.File {
	if c.file == nil && c.fd >= 0 {
		c.file = os.NewFile(uintptr(c.fd), "channel")
	}
	return c.file // nil, which refuses everything, of a channel that was closed
}

// isClosed says whether there is no descriptor any more. One that the runtime's poller has may be closed by others meanwhile, and
// its file then says so itself.
func (c *channel) isClosed() bool { return c.file == nil && c.fd < 0 }

// write sends text, and waits for as long as bootTimeout where the socket's buffer does not hold it.
func (c *channel) write(text string) error {
	if c.isClosed() {
		return os.ErrClosed
	}
	if c.file == nil {
		n, err := unix.Write(c.fd, []byte(text))
		if n == len(text) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		text = text[max(n, 0):]
	}
	if len(text) > 1<<14 || c.file == nil { // less fits into an empty buffer
		_ = c.pollable().SetWriteDeadline(time.Now().Add(bootTimeout))
	}
	_, err := io.WriteString(c.pollable(), text)
	return err
}

// read waits until deadline for what the worker says, and returns the sender's pid as we see it, or 0. EOF is io.EOF.
func (c *channel) read(into []byte, deadline time.Time) (n int, pid int32, err error) {
	if c.isClosed() {
		return 0, 0, os.ErrClosed
	}
	if c.file == nil {
		if n, pid, err = receive(c.fd, into); err != unix.EAGAIN { //nolint:errorlint // bare errnos
			return n, pid, err
		}
	}
	raw, err := c.pollable().SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	_ = c.file.SetReadDeadline(deadline)
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, pid, failed = receive(int(fd), into)
		return failed != unix.EAGAIN //nolint:errorlint // bare errnos
	})
	return n, pid, errors.Join(err, failed)
}

// receive reads what lies in the channel, and the credentials that come with it.
func receive(fd int, into []byte) (n int, pid int32, err error) {
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	var oobn int
	for err = error(unix.EINTR); err == unix.EINTR; { //nolint:errorlint // bare errnos
		n, oobn, _, _, err = unix.Recvmsg(fd, into, oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) > 0 {
		if sender, err := unix.ParseUnixCredentials(&messages[0]); err == nil {
			pid = sender.Pid
		}
	}
	return n, pid, nil
}

// closeWrite ends what the worker reads.
func (c *channel) closeWrite() (err error) {
	if c.file == nil {
		if c.fd < 0 {
			return os.ErrClosed
		}
		return unix.Shutdown(c.fd, unix.SHUT_WR)
	}
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	// By the file, whose descriptor is not closed, and so not another's, meanwhile.
	if refused := raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); refused != nil {
		return refused
	}
	return err
}

func (c *channel) close() {
	if c.file != nil {
		_ = c.file.Close()
	} else if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}
