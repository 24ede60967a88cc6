package packages

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxProxyConnections = 64
	maxProxyHeader      = 64 << 10 // bytes
	maxRefused          = 64
	// proxyIdle is the time after which a connection is closed when no byte has moved in either direction.
	proxyIdle = 2 * time.Minute
	// proxyHeaderTimeout bounds the reading of a request's header.
	proxyHeaderTimeout = 30 * time.Second
	// proxyDialTimeout bounds connecting to a host.
	proxyDialTimeout = 20 * time.Second
)

// ProxyOptions say what an installer may reach, and how. With the zero value it reaches nothing.
type ProxyOptions struct {
	// Hosts lists HOST:PORT that may be reached; the default port is 443. See Index.Hosts.
	Hosts []string
	// MaxBytes bounds what is sent to the installer over all connections together. 0 is no bound.
	MaxBytes int64
	// Upstream is the URL of the proxy through which hosts are reached, as PipConfig.Proxy. With "" the environment says
	// which one, NO_PROXY included. It has no effect when Dial is set.
	Upstream string
	// Dial makes connections to hosts. Default: directly, or through Upstream.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Logger receives refusals and failures. Default: slog.Default().
	Logger *slog.Logger

	idle time.Duration // for tests; default: proxyIdle
}

// Proxy is the HTTP proxy that is the only network access of an installer. All methods may be called concurrently.
//
// It connects only to the HOST:PORT pairs that the operator or an index has named, never to others that the installer asks for,
// and it resolves names itself. It does not check the addresses to which an allowed name resolves: the operator's index may
// well have a private address.
type Proxy struct {
	server    *http.Server
	listener  net.Listener
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	transport *http.Transport
	forward   *httputil.ReverseProxy
	log       *slog.Logger
	maxBytes  int64
	idle      time.Duration
	end       context.CancelFunc
	ended     context.Context
	slots     chan struct{}  // an element for each connection, at most maxProxyConnections
	serving   sync.WaitGroup // of Serve, each connection and each tunnel

	bytes    atomic.Int64
	exceeded atomic.Bool

	mu      sync.Mutex
	hosts   map[string]bool
	refused []string
	conns   map[*proxyConn]struct{}
	closed  bool
}

// NewProxy returns a Proxy that serves on l until Close, which closes l, too.
func NewProxy(l net.Listener, o ProxyOptions) *Proxy {
	p := &Proxy{
		listener: l, dial: o.Dial, log: o.Logger, maxBytes: o.MaxBytes, idle: cmp.Or(o.idle, proxyIdle),
		slots: make(chan struct{}, maxProxyConnections), hosts: map[string]bool{}, conns: map[*proxyConn]struct{}{},
	}
	if p.log == nil {
		p.log = slog.Default()
	}
	p.Allow(o.Hosts...)
	p.ended, p.end = context.WithCancel(context.Background())
	p.transport = &http.Transport{
		MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: p.idle,
		DisableCompression: true, // pass answers on as the index sends them
		DialContext:        o.Dial,
	}
	if o.Dial == nil {
		direct := &net.Dialer{Timeout: proxyDialTimeout}
		p.transport.DialContext = direct.DialContext
		upstream, err := upstreamProxy(o.Upstream)
		if err != nil { // NewIndex has reported the same error to the operator; here each connection fails with it
			upstream = func(*url.URL) (*url.URL, error) { return nil, err }
		}
		p.transport.Proxy = func(r *http.Request) (*url.URL, error) { return upstream(r.URL) }
		p.dial = (&tunnelDialer{direct, upstream}).dial
	}
	p.forward = &httputil.ReverseProxy{
		Transport: p.transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Host = r.Out.URL.Host
			r.Out.Body, r.Out.ContentLength, r.Out.TransferEncoding = http.NoBody, 0, nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { p.fail(w, r.URL.Host, err) },
		ErrorLog:     slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	p.server = &http.Server{
		Handler: p, MaxHeaderBytes: maxProxyHeader, ReadHeaderTimeout: proxyHeaderTimeout, IdleTimeout: p.idle,
		BaseContext: func(net.Listener) context.Context { return p.ended },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				p.serving.Add(1) // called by Serve, which is counted itself: so Close cannot have stopped waiting
			case http.StateClosed, http.StateHijacked:
				p.serving.Done()
			default: // active or idle: the connection is counted already
			}
		},
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	p.serving.Go(func() {
		if err := p.server.Serve(&proxyListener{l, p}); !errors.Is(err, http.ErrServerClosed) && p.ended.Err() == nil {
			p.log.Error("the proxy of the installer ended", "error", err)
		}
	})
	return p
}

// Allow adds hosts that may be reached, as ProxyOptions.Hosts. Texts that are no host are ignored.
func (p *Proxy) Allow(hosts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, host := range hosts {
		if normal := normalHost(host); normal != "" {
			p.hosts[normal] = true
		}
	}
}

// Close closes the listener and every connection, and returns when all goroutines of the proxy have ended.
func (p *Proxy) Close() error {
	p.end()
	err := p.server.Close()
	if listenerErr := p.listener.Close(); err == nil && !errors.Is(listenerErr, net.ErrClosed) {
		err = listenerErr // the server does not close the listener when Close comes before Serve
	}
	p.closeConns()
	p.serving.Wait()
	p.transport.CloseIdleConnections()
	return err
}

// Bytes returns how many bytes were sent to the installer so far, those with which it exceeded MaxBytes included.
func (p *Proxy) Bytes() int64 { return p.bytes.Load() }

// Exceeded says that more than ProxyOptions.MaxBytes was to be sent, so that all connections were closed.
func (p *Proxy) Exceeded() bool { return p.exceeded.Load() }

// Refused returns the hosts that the installer asked for and that are not allowed, each once, with the port unless that is
// 443; at most 64 of them. They are well-formed hosts, but chosen by the installer, hence untrusted. The slice is the caller's.
func (p *Proxy) Refused() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.refused)
}

// ServeHTTP implements http.Handler; it is for the proxy's own server.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		if host := normalHost(r.Host); host == "" || !hasPort(r.Host) {
			answer(w, http.StatusBadRequest, "CONNECT needs HOST:PORT")
		} else if p.allowed(w, host) {
			p.tunnel(w, r, host)
		}
	case r.URL.Scheme != "http" || hostOf(r.URL) == "":
		answer(w, http.StatusBadRequest, "this is a proxy: it takes CONNECT, and http addresses")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		answer(w, http.StatusMethodNotAllowed, "the installer may only read")
	default:
		if p.allowed(w, hostOf(r.URL)) {
			r.Header.Del("Upgrade") // httputil.ReverseProxy would make a tunnel of an upgraded connection
			r.URL.User = nil
			p.forward.ServeHTTP(w, r)
		}
	}
}

// allowed says whether a host may be reached. When it may not, allowed notes the host for Refused and answers the request.
func (p *Proxy) allowed(w http.ResponseWriter, host string) bool {
	p.mu.Lock()
	allowed, shown := p.hosts[host], shownHost(host)
	isNew := !allowed && len(p.refused) < maxRefused && !slices.Contains(p.refused, shown)
	if isNew {
		p.refused = append(p.refused, shown)
	}
	p.mu.Unlock()
	if isNew {
		p.log.Info("the installer asked for a host that is not allowed", "host", shown)
	}
	if !allowed {
		answer(w, http.StatusForbidden, (&HostError{Host: shown}).Error())
	}
	return allowed
}

func (p *Proxy) fail(w http.ResponseWriter, host string, err error) {
	p.log.Debug("the installer's way to a host failed", "host", host, "error", err)
	answer(w, http.StatusBadGateway, requestError(p.ended, &url.URL{Host: host}, err).Error())
}

// answer sends a response of one line of text.
func answer(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, line)
}
