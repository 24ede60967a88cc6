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
	// proxyIdle ends a connection on which nothing moves, in either direction.
	proxyIdle = 2 * time.Minute
	// proxyHeaderTimeout bounds the reading of a request.
	proxyHeaderTimeout = 30 * time.Second
	// proxyDialTimeout bounds the way to a host.
	proxyDialTimeout = 20 * time.Second
)

// ProxyOptions bound what an installer reaches. The zero value reaches nothing.
type ProxyOptions struct {
	// Hosts lists HOST:PORT that may be reached; the port is 443 where none is said. See Index.Hosts.
	Hosts []string
	// MaxBytes bounds what goes to the installer over all connections together. 0 is no bound.
	MaxBytes int64
	// Upstream is the URL of the proxy to the outside, as PipConfig.Proxy. "" is what the environment says, NO_PROXY
	// included. Dial, when set, takes its place.
	Upstream string
	// Dial makes connections. Default: direct ones, or through Upstream.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Logger receives what is refused. Default: slog.Default().
	Logger *slog.Logger

	idle time.Duration // of tests; default: proxyIdle
}

// Proxy is the HTTP proxy that is an installer's only way out. All methods may be called concurrently.
//
// What may be reached is a list of literal HOST:PORT that the operator or his indexes named, never a word of the
// installer, and names are resolved here. So no address needs to be looked at: whoever can make an allowed name lead to a
// private address is the operator, whose index may well be at one.
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
	slots     chan struct{}
	serving   sync.WaitGroup // Serve, connections and tunnels

	bytes    atomic.Int64
	exceeded atomic.Bool

	mu      sync.Mutex
	hosts   map[string]bool
	refused []string
	conns   map[*proxyConn]struct{}
	closed  bool
}

// NewProxy serves on a listener until Close, which closes that, too.
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
		DisableCompression: true, // the installer gets what the index sends
		DialContext:        o.Dial,
	}
	if o.Dial == nil {
		direct := &net.Dialer{Timeout: proxyDialTimeout}
		p.transport.DialContext = direct.DialContext
		upstream, err := upstreamProxy(o.Upstream)
		if err != nil { // NewIndex says so to the operator; here every connection does
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
				p.serving.Add(1) // in the goroutine of Serve, which Close waits for
			case http.StateClosed, http.StateHijacked:
				p.serving.Done()
			default: // it is served, or waits for its next request
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

// Allow adds hosts that may be reached, as ProxyOptions.Hosts. What is none is left out.
func (p *Proxy) Allow(hosts ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, host := range hosts {
		if normal := normalHost(host); normal != "" {
			p.hosts[normal] = true
		}
	}
}

// Close ends every connection, and returns when nothing of the proxy is left.
func (p *Proxy) Close() error {
	p.end()
	err := p.server.Close()
	if listenerErr := p.listener.Close(); err == nil && !errors.Is(listenerErr, net.ErrClosed) {
		err = listenerErr // when Serve had not begun, the server does not know it
	}
	p.closeConns()
	p.serving.Wait()
	p.transport.CloseIdleConnections()
	return err
}

// Bytes returns how many went to the installer so far.
func (p *Proxy) Bytes() int64 { return p.bytes.Load() }

// Exceeded says that ProxyOptions.MaxBytes was reached, so that all connections were cut.
func (p *Proxy) Exceeded() bool { return p.exceeded.Load() }

// Refused returns the hosts that were asked for and are not allowed, with the port unless that is HTTPS's, each once. It
// is what the installer said: untrusted, though nothing but hosts. The slice is the caller's.
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
			r.Header.Del("Upgrade") // or the answer could become a tunnel
			r.URL.User = nil
			p.forward.ServeHTTP(w, r)
		}
	}
}

// allowed says whether a host may be reached, and answers when not.
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

// answer is one line.
func answer(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, line)
}
