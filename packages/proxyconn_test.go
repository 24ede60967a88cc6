package packages

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// streamServer is a TCP server that runs a function on each connection.
func streamServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// connect opens a tunnel to host through a proxy. rest is sent together with the request for the tunnel.
func connect(t *testing.T, proxy, host, rest string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n%s", host, rest); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", response, err)
	}
	return conn.(*net.TCPConn), reader
}

// Each direction of a tunnel ends by itself, and bytes that arrive together with the request are passed on.
func TestProxyTunnelIsAStream(t *testing.T) {
	t.Parallel()
	host := streamServer(t, func(conn net.Conn) {
		all, _ := io.ReadAll(conn)
		_, _ = fmt.Fprintf(conn, "got %s", all)
	})
	_, address := newTestProxy(t, ProxyOptions{Hosts: []string{host}})
	conn, reader := connect(t, address, host, "first ")
	if _, err := io.WriteString(conn, "second"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reader); err != nil || string(got) != "got first second" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestProxyCutsWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	endless := streamServer(t, func(conn net.Conn) {
		for chunk := make([]byte, 1<<16); ; {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	})
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 4*limit))
	}))
	t.Cleanup(plain.Close)
	t.Run("tunnel", func(t *testing.T) {
		t.Parallel()
		p, address := newTestProxy(t, ProxyOptions{Hosts: []string{endless}, MaxBytes: limit})
		_, quiet := connect(t, address, streamAllowed(t, p), "")
		_, reader := connect(t, address, endless, "")
		if n, _ := io.Copy(io.Discard, reader); n > limit || n < limit/2 {
			t.Errorf("%d bytes came", n)
		}
		if _, err := quiet.ReadByte(); err == nil {
			t.Error("another tunnel goes on")
		}
		if !p.Exceeded() || p.Bytes() <= limit {
			t.Errorf("%d bytes, %t", p.Bytes(), p.Exceeded())
		}
		if first, _ := raw(t, address, "GET / HTTP/1.1\r\n\r\n"); first != "" {
			t.Errorf("a later connection is answered: %q", first)
		}
	})
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		p, address := newTestProxy(t, ProxyOptions{Hosts: []string{hostOfServer(plain)}, MaxBytes: limit})
		if _, body, err := bodyOf(clientOf(t, address, nil), plain.URL); err == nil || len(body) > limit || !p.Exceeded() {
			t.Errorf("got %d bytes, %v, %t", len(body), err, p.Exceeded())
		}
	})
	t.Run("less", func(t *testing.T) {
		t.Parallel()
		p, address := newTestProxy(t, ProxyOptions{Hosts: []string{hostOfServer(plain)}, MaxBytes: 5 * limit})
		if _, body, err := bodyOf(clientOf(t, address, nil), plain.URL); err != nil || len(body) != 4*limit || p.Exceeded() || p.Bytes() < 4*limit {
			t.Errorf("got %d bytes, %v, %t", len(body), err, p.Exceeded())
		}
	})
}

// streamAllowed starts a host that sends nothing and that the proxy may reach, and returns its HOST:PORT.
func streamAllowed(t *testing.T, p *Proxy) string {
	host := streamServer(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	p.Allow(host)
	return host
}

func TestProxyCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	dialing := make(chan struct{})
	p, address := newTestProxy(t, ProxyOptions{Hosts: []string{"slow.example", "127.0.0.1:1"}, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "slow.example:443" {
			close(dialing)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}})
	_, tunnel := connect(t, address, streamAllowed(t, p), "")
	ended := make(chan string, 1)
	go func() {
		first, _ := raw(t, address, "CONNECT slow.example:443 HTTP/1.1\r\nHost: slow.example\r\n\r\n")
		ended <- first
	}()
	<-dialing
	idle, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	if _, err := tunnel.ReadByte(); err == nil {
		t.Error("the tunnel goes on")
	}
	<-ended
	_ = idle.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an idle connection goes on: %v", err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) != 0 || len(p.slots) != 0 {
		t.Errorf("%d connections are left, %d slots", len(p.conns), len(p.slots))
	}
}

func TestProxyBoundsItsConnections(t *testing.T) {
	t.Parallel()
	p, address := newTestProxy(t, ProxyOptions{})
	host := streamAllowed(t, p)
	var first *net.TCPConn
	for range maxProxyConnections {
		conn, _ := connect(t, address, host, "")
		first = conn
	}
	waiting, err := net.Dial("tcp", address) // succeeds without an accept by the proxy: the connection is in the listener's backlog
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = waiting.Close() }()
	if _, err := io.WriteString(waiting, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = waiting.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more is answered: %v", err)
	}
	_ = first.Close()
	_ = waiting.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := waiting.Read(make([]byte, 1)); err != nil {
		t.Errorf("it is not answered after another has ended: %v", err)
	}
}

func TestProxyEndsIdleTunnels(t *testing.T) {
	t.Parallel()
	p, address := newTestProxy(t, ProxyOptions{idle: 50 * time.Millisecond})
	_, reader := connect(t, address, streamAllowed(t, p), "")
	if _, err := reader.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
