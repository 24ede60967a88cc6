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

// transport sends requests with the account of their index, if it has one, and does not check the certificates of hosts in
// trusted-host.
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
		ForceAttemptHTTP2:     true, // a TLSClientConfig would turn HTTP/2 off
	}
	unverified := verified.Clone()
	unverified.TLSClientConfig.InsecureSkipVerify = true // for the hosts of trusted-host only
	return &transport{x, verified, unverified}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	// The headers are set here, anew for each redirect. Set on the first request, http.Client could carry the account, or a
	// signed URL as Referer, to another host.
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
		files, _ = filepath.Glob(filepath.Join(path, "*")) // a * or [ in path itself may match nothing, which is an error below
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

// request sends a request and follows redirects. check is called with every URL, the first one included, and refuses it by an
// error. The caller must close the body of the response. Reading the body fails when nothing comes for as long as the timeout
// of the settings.
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

// watchedBody is the body of a response. It cancels the request when a Read gets nothing within timeout, and returns errors that
// name no URL (see requestError).
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
	b.timer.Stop() // the time until the caller's next Read does not count
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

// statusError returns the error for a response whose status the caller does not handle itself.
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

// hostCheck returns a check for request that accepts only http and https URLs of hosts, which are as normalHost.
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
