package packages

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

var errTooMuch = errors.New("more than the installer may fetch")

// proxyListener bounds the number of connections, and makes each a proxyConn.
type proxyListener struct {
	net.Listener
	p *Proxy
}

func (l *proxyListener) Accept() (net.Conn, error) {
	select {
	case l.p.slots <- struct{}{}:
	case <-l.p.ended.Done():
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.p.slots
		return nil, err
	}
	c := &proxyConn{Conn: conn, p: l.p}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.p.closed { // closeConns has run before this connection was in conns
		_ = conn.Close()
	}
	l.p.conns[c] = struct{}{}
	return c, nil
}

// closeConns closes all connections of the installer, and makes Accept close those that come later.
func (p *Proxy) closeConns() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.conns {
		_ = c.Conn.Close() // not c.Close, which would lock mu: the goroutine that serves the connection calls that
	}
}

// proxyConn is a connection from the installer. Close gives its slot back.
type proxyConn struct {
	net.Conn
	p     *Proxy
	close sync.Once
}

// Write counts the bytes, and closes all connections when they exceed maxBytes. It fails when the installer does not read for
// p.idle.
func (c *proxyConn) Write(b []byte) (int, error) {
	if total := c.p.bytes.Add(int64(len(b))); c.p.maxBytes > 0 && total > c.p.maxBytes {
		c.p.exceeded.Store(true)
		c.p.closeConns()
		return 0, errTooMuch
	}
	_ = c.Conn.SetWriteDeadline(time.Now().Add(c.p.idle))
	return c.Conn.Write(b)
}

func (c *proxyConn) Close() error {
	err := net.ErrClosed
	c.close.Do(func() {
		err = c.Conn.Close()
		c.p.mu.Lock()
		delete(c.p.conns, c)
		c.p.mu.Unlock()
		<-c.p.slots
	})
	return err
}

func (c *proxyConn) CloseWrite() error { return closeWrite(c.Conn) }

// closeWrite closes the sending side of a connection, or all of it when the type has no CloseWrite.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// tunnel connects to host and copies bytes both ways between it and the installer, until both sides have ended, one has failed,
// or nothing has moved for p.idle.
func (p *Proxy) tunnel(w http.ResponseWriter, r *http.Request, host string) {
	remote, err := p.dial(r.Context(), "tcp", host)
	if err != nil {
		p.fail(w, host, err)
		return
	}
	defer func() { _ = remote.Close() }()
	p.serving.Add(1) // before Hijack, after which the connection is no longer counted: so Close waits for the tunnel, too
	defer p.serving.Done()
	local, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		answer(w, http.StatusInternalServerError, "no tunnel: "+err.Error())
		return
	}
	defer func() { _ = local.Close() }()
	_ = local.SetReadDeadline(time.Time{}) // removes the server's deadline for the header
	if _, err := io.WriteString(local, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	both := func() {
		_ = local.Close()
		_ = remote.Close()
	}
	idle := time.AfterFunc(p.idle, both)
	defer idle.Stop()
	var wait sync.WaitGroup
	move := func(to net.Conn, from io.Reader) {
		if moveBytes(to, from, func() { idle.Reset(p.idle) }) != nil || closeWrite(to) != nil {
			both()
		}
	}
	wait.Go(func() { move(remote, buffered.Reader) }) // which may have read bytes after the request already
	wait.Go(func() { move(local, remote) })
	wait.Wait()
}

// moveBytes is io.Copy that calls moved whenever it has read something.
func moveBytes(to io.Writer, from io.Reader, moved func()) error {
	buffer := make([]byte, 32<<10)
	for {
		n, readErr := from.Read(buffer)
		if n > 0 {
			moved()
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case readErr == io.EOF:
			return nil
		case readErr != nil:
			return readErr
		}
	}
}
