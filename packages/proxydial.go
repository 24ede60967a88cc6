package packages

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// upstreamProxy returns a function that returns the URL of the proxy for a request, or nil for none. The proxy is setting; with ""
// it is the one that the environment names at this moment. localhost and loopback addresses are never reached by a proxy.
func upstreamProxy(setting string) (func(*url.URL) (*url.URL, error), error) {
	if setting == "" {
		return httpproxy.FromEnvironment().ProxyFunc(), nil
	}
	full := setting
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("proxy of pip's configuration is %q: use http://HOST:PORT", redactURL(setting))
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, fmt.Errorf("proxy of pip's configuration is %q: use an http, https or socks5 address", redactURL(setting))
	}
	return (&httpproxy.Config{HTTPProxy: full, HTTPSProxy: full}).ProxyFunc(), nil // without NO_PROXY, which pip ignores then, too
}

// tunnelDialer connects to hosts through the upstream proxy, or directly when upstream returns none.
type tunnelDialer struct {
	direct   *net.Dialer
	upstream func(*url.URL) (*url.URL, error)
}

func (d *tunnelDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	u, err := d.upstream(&url.URL{Scheme: "https", Host: addr})
	if err != nil {
		return nil, err
	}
	if u == nil {
		return d.direct.DialContext(ctx, network, addr)
	}
	ctx, cancel := context.WithTimeout(ctx, proxyDialTimeout)
	defer cancel()
	if strings.HasPrefix(u.Scheme, "socks5") {
		socks, err := proxy.FromURL(u, d.direct)
		if err != nil {
			return nil, err
		}
		return socks.(proxy.ContextDialer).DialContext(ctx, network, addr)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := d.direct.DialContext(ctx, network, net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, &net.OpError{Op: "proxyconnect", Net: network, Err: err} // the Op that http.Transport uses for this, too
	}
	if u.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12})
	}
	if conn, err = connectThrough(ctx, conn, addr, u.User); err != nil {
		return nil, &net.OpError{Op: "proxyconnect", Net: network, Err: err}
	}
	return conn, nil
}

// connectThrough asks the proxy at the other end of conn for a tunnel to addr by CONNECT. It closes conn on failure.
func connectThrough(ctx context.Context, conn net.Conn, addr string, user *url.Userinfo) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{"User-Agent": {""}}}
	if user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	err := request.Write(conn)
	reader := bufio.NewReader(conn)
	if err == nil {
		var response *http.Response
		//nolint:bodyclose // what follows the head is the tunnel
		if response, err = http.ReadResponse(reader, request); err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("it answers %s", response.Status)
		}
	}
	if !stop() && err == nil {
		err = ctx.Err() // ctx has ended, and conn has got a deadline in the past
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if reader.Buffered() == 0 {
		return conn, nil
	}
	return &bufferedConn{conn, reader}, nil // reader has bytes of the host that came along with the proxy's answer
}

// bufferedConn is a connection from which reader has read ahead.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c *bufferedConn) Read(b []byte) (int, error) { return c.reader.Read(b) }

func (c *bufferedConn) CloseWrite() error { return closeWrite(c.Conn) }
