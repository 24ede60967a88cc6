package pool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// channel is Caddy's end of the socket over which a worker reports that it is ready and gets its request. The worker closes the
// other end before it runs user code.
//
// It begins as a bare descriptor, since the runtime's poller would wake a thread for each message, whether or not a goroutine waits
// for it. In this form one goroutine at a time may use it. Once a caller has to wait, pollable makes an os.File of it; from then on
// other goroutines may close it at any time. Reading, writing and closeWrite fail on a closed channel.
type channel struct {
	fd   int      // -1 for none, since 0 is a valid descriptor
	file *os.File // nil until pollable; then it owns the descriptor
}

// closedChannel is a channel without a descriptor.
func closedChannel() channel { return channel{fd: -1} }

// newChannel makes the socket and returns Caddy's end, and the descriptor of the worker's end, -1 when there is none. The caller closes
// both, also when err is not nil.
func newChannel() (c channel, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return closedChannel(), -1, fmt.Errorf("making a channel: %w", err)
	}
	c.fd = pair[0]
	if _, err = unix.FcntlInt(uintptr(c.fd), unix.F_SETFL, unix.O_RDWR|unix.O_NONBLOCK); err == nil {
		// The kernel then adds the sender's pid to each message (unix(7)).
		err = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	return c, pair[1], err
}

// pollable hands the descriptor to the runtime's poller, so that a goroutine can wait for it with a deadline.
func (c *channel) pollable() *os.File {
	if c.file == nil && c.fd >= 0 {
		c.file = os.NewFile(uintptr(c.fd), "channel")
	}
	return c.file // nil when the channel was closed; the methods of a nil os.File fail
}

// isClosed says whether there was never a descriptor, or it was closed before pollable. After pollable it returns false: the file's own
// methods fail once it is closed.
func (c *channel) isClosed() bool { return c.file == nil && c.fd < 0 }

// write sends text. When the socket's buffer is full it waits, up to bootTimeout.
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
	if len(text) > 1<<14 || c.file == nil { // a shorter text fits into an empty buffer and needs no deadline
		_ = c.pollable().SetWriteDeadline(time.Now().Add(bootTimeout))
	}
	_, err := io.WriteString(c.pollable(), text)
	return err
}

// read waits until deadline for bytes from the worker. pid is the sender's in Caddy's pid namespace, 0 when the kernel gave none. At end
// of file err is io.EOF.
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

// receive reads what has arrived, and the pid that the kernel has added, without waiting.
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

// closeWrite gives the worker end of file, and leaves the channel open for reading.
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
	// Through the file, which keeps its descriptor open during the call. Otherwise another goroutine could close it, and the number
	// could be reused.
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
