package packages

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const maxRedirects = 10

// transport sends requests with who asks, and without checking certificates where trusted-host says so.
type transport struct {
	x                    *Index
	verified, unverified *http.Transport
}

func newTransport(x *Index) (*transport, error) {
	proxy, err := upstreamProxy(x.settings.Proxy)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if x.settings.Cert != "" {
		if config.RootCAs, err = loadCertificates(absolutePath(x.settings.Cert)); err != nil {
			return nil, err
		}
	}
	if path := absolutePath(x.settings.ClientCert); path != "" {
		pair, err := tls.LoadX509KeyPair(path, path)
		if err != nil {
			return nil, fmt.Errorf("client-cert of pip's configuration cannot be used: name a PEM file that has the certificate and its key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	timeout := x.settings.timeout()
	verified := &http.Transport{
		Proxy:                 func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		DialContext:           (&net.Dialer{Timeout: timeout}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   timeout,
		ResponseHeaderTimeout: timeout,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   parallelDownloads,
		ForceAttemptHTTP2:     true, // which a TLSClientConfig turns off
	}
	unverified := verified.Clone()
	unverified.TLSClientConfig.InsecureSkipVerify = true // for the hosts of trusted-host only
	return &transport{x, verified, unverified}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	// Here rather than in the first request: a redirect must not carry an account, or a signed URL, to another host.
	r.Header.Del("Referer")
	r.Header.Set("User-Agent", t.x.userAgent)
	t.x.authorize(r)
	if t.x.isTrusted(r.URL) {
		return t.unverified.RoundTrip(r)
	}
	return t.verified.RoundTrip(r)
}

func (t *transport) CloseIdleConnections() {
	t.verified.CloseIdleConnections()
	t.unverified.CloseIdleConnections()
}

// loadCertificates reads a file of certificates, or all files of a directory.
func loadCertificates(path string) (*x509.CertPool, error) {
	files := []string{path}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		files, _ = filepath.Glob(filepath.Join(path, "*")) // a pattern in the path itself finds nothing, which is told below
	}
	pool, found := x509.NewCertPool(), false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			if len(files) > 1 {
				continue // a directory may hold directories
			}
			return nil, fmt.Errorf("cert of pip's configuration cannot be read: name a PEM file, or a directory of such: %w", err)
		}
		found = pool.AppendCertsFromPEM(text) || found
	}
	if !found {
		return nil, fmt.Errorf("cert of pip's configuration, %s, has no certificate: name a PEM file, or a directory of such", path)
	}
	return pool, nil
}

// request sends a request whose redirects stay on the allowed hosts. check is asked about every URL, the first one
// included. The caller closes the body of the response, which fails when nothing comes for the timeout of the settings.
func (x *Index) request(ctx context.Context, method string, u *url.URL, header http.Header, check func(*url.URL) error) (*http.Response, error) {
	if err := check(u); err != nil {
		return nil, err
	}
	watched, cancel := context.WithCancelCause(ctx)
	r, err := http.NewRequestWithContext(watched, method, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	r.Header = header
	client := &http.Client{Transport: x.transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return &IndexError{Host: shownHost(r.URL.Host), Reason: "redirects too often"}
		}
		return check(r.URL)
	}}
	response, err := client.Do(r)
	if err != nil {
		cancel(nil)
		return nil, requestError(ctx, u, err)
	}
	timeout := x.settings.timeout()
	response.Body = &watchedBody{
		ReadCloser: response.Body, ctx: ctx, url: response.Request.URL, cancel: cancel, timeout: timeout,
		timer: time.AfterFunc(timeout, func() { cancel(errStalled) }), cause: func() error { return context.Cause(watched) },
	}
	return response, nil
}

// watchedBody gives up when nothing comes for too long, and has errors that can be shown.
type watchedBody struct {
	io.ReadCloser
	ctx     context.Context // the caller's
	url     *url.URL
	cancel  context.CancelCauseFunc
	cause   func() error
	timer   *time.Timer
	timeout time.Duration
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.timeout)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop() // what the reader does with it is not the index's time
	//nolint:errorlint // readers say io.EOF unwrapped
	if err != nil && err != io.EOF {
		if errors.Is(b.cause(), errStalled) {
			err = errStalled
		}
		err = requestError(b.ctx, b.url, err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// statusError says what an answer without content means, for all statuses but those that callers know.
func statusError(response *http.Response) *IndexError {
	e := &IndexError{Host: shownHost(response.Request.URL.Host), Status: response.StatusCode}
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Reason = fmt.Sprintf("refuses this account (%s)", response.Status)
	default:
		e.Reason = fmt.Sprintf("answers %s", response.Status)
	}
	return e
}

// hostCheck returns a check for request: http and https URLs of the hosts only.
func hostCheck(hosts []string) func(*url.URL) error {
	return func(u *url.URL) error {
		host := hostOf(u)
		if host == "" {
			return &IndexError{Host: shownHost(u.Host), Reason: fmt.Sprintf("leads to a %q address, which is not fetched", u.Scheme)}
		}
		if !slices.Contains(hosts, host) {
			return &HostError{Host: shownHost(host)}
		}
		return nil
	}
}
