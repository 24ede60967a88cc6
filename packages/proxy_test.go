package packages

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// newTestProxy returns a proxy that the test closes, and its address.
func newTestProxy(t *testing.T, o ProxyOptions) (*Proxy, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// In production, too, the listener comes from a file descriptor that another process has made.
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if l, err = net.FileListener(file); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	o.Logger = slog.New(slog.DiscardHandler)
	p := NewProxy(l, o)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return p, l.Addr().String()
}

// clientOf returns a client that sends its requests through a proxy, as pip does. It trusts the server's certificate, if any.
func clientOf(t *testing.T, proxy string, server *httptest.Server) *http.Client {
	t.Helper()
	transport := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}),
		TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}, // a name that httptest's certificate has
	}
	if server != nil && server.Certificate() != nil {
		transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func bodyOf(client *http.Client, url string) (int, string, error) {
	response, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

func hostOfServer(s *httptest.Server) string { return s.Listener.Addr().String() }

// reported reads a report that pip has written about what it would install.
func reported(t *testing.T, report string) []Wanted {
	t.Helper()
	var parsed struct {
		Install []struct {
			DownloadInfo struct {
				URL     string
				Archive struct{ Hashes struct{ SHA256 string } } `json:"archive_info"`
			} `json:"download_info"`
			Metadata struct{ Name, Version string }
		}
	}
	text, err := os.ReadFile(report)
	if err == nil {
		err = json.Unmarshal(text, &parsed)
	}
	if err != nil {
		t.Fatal(err)
	}
	var wanted []Wanted
	for _, p := range parsed.Install {
		if p.DownloadInfo.Archive.Hashes.SHA256 == "" {
			t.Errorf("pip reports no hash for %s", p.Metadata.Name)
		}
		wanted = append(wanted, Wanted{p.Metadata.Name, p.Metadata.Version, p.DownloadInfo.URL, p.DownloadInfo.Archive.Hashes.SHA256})
	}
	return wanted
}

func TestProxyForRealPip(t *testing.T) {
	t.Parallel()
	pip := index.NewPip(t)
	plain, secure, other := newTestServer(t), index.NewTLS(), newTestServer(t)
	t.Cleanup(secure.Close)
	secure.SetAccount("me", "p@ss")
	cert := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(cert, secure.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := index.Wheel{Name: "elsewhere", Version: "1"}.File()
	other.Add(index.Project{Name: "elsewhere", Files: []index.File{elsewhere}})
	for _, s := range []*index.Server{plain, secure} {
		s.AddWheels(index.Wheel{Name: "app", Version: "1", Requires: []string{"lib"}}, index.Wheel{Name: "lib", Version: "2"},
			index.Wheel{Name: "astray", Version: "1", Requires: []string{"elsewhere @ " + other.FileURL(elsewhere.Name)}})
	}
	for _, c := range []struct {
		name   string
		server *index.Server
		config PipConfig
	}{
		{"plain", plain, PipConfig{IndexURL: plain.URL(), Retries: -1}},
		{"tunnel", secure, PipConfig{IndexURL: withAccount(secure.URL(), "me:p%40ss"), Cert: cert, Retries: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newTestIndex(t, c.config, IndexOptions{})
			proxy, address := newTestProxy(t, ProxyOptions{Hosts: x.Hosts(), MaxBytes: 1 << 20})
			env := append(c.config.Environment(), "PIP_PROXY=http://"+address)
			report := filepath.Join(t.TempDir(), "report.json")
			out, err := pip.Run(t, env, "install", "--dry-run", "--ignore-installed", "--report", report, "app")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			dir := t.TempDir()
			if paths, err := x.Download(t.Context(), dir, reported(t, report), DownloadOptions{MaxBytes: 1 << 20}); err != nil || len(paths) != 2 {
				t.Errorf("got %q, %v", paths, err)
			}
			if proxy.Bytes() < 500 || proxy.Exceeded() || len(proxy.Refused()) != 0 {
				t.Errorf("%d bytes, %t, refused %q", proxy.Bytes(), proxy.Exceeded(), proxy.Refused())
			}
			out, err = pip.Run(t, env, "install", "--dry-run", "astray")
			if err == nil || !slices.Equal(proxy.Refused(), []string{other.Host()}) || len(other.Requests()) != 0 {
				t.Errorf("refused %q: %v\n%s", proxy.Refused(), err, out)
			}
		})
	}
}

func TestProxyReachesAllowedHostsOnly(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "X-Secret")
		w.Header().Set("X-Secret", "hop")
		_, _ = fmt.Fprintf(w, "%s %s %s %q %q %q", r.Method, r.Host, r.URL, r.Header.Get("Proxy-Authorization"), r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Mine"))
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	p, address := newTestProxy(t, ProxyOptions{})
	client := clientOf(t, address, secure)

	status, body, err := bodyOf(client, plain.URL)
	want := fmt.Sprintf("the index sends the installer to %s, which is not one of its hosts: the operator can allow it with packages { hosts %[1]s }\n", hostOfServer(plain))
	if err != nil || status != http.StatusForbidden || body != want {
		t.Errorf("got %d, %q, %v", status, body, err)
	}
	if _, _, err := bodyOf(client, secure.URL); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("got %v", err)
	}
	if got, want := p.Refused(), []string{hostOfServer(plain), hostOfServer(secure)}; !slices.Equal(got, want) {
		t.Errorf("refused %q, want %q", got, want)
	}
	p.Allow(hostOfServer(plain), hostOfServer(secure), "*")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, plain.URL+"/a%20b?c=d", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Proxy-Authorization": {"x"}, "X-Mine": {"x"}, "X-Forwarded-For": {"x"}, "Connection": {"X-Mine"}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if want := fmt.Sprintf(`GET %s /a%%20b?c=d "" "" ""`, hostOfServer(plain)); err != nil || string(text) != want || response.Header.Get("X-Secret") != "" {
		t.Errorf("got %q, %v, want %q", text, err, want)
	}
	if status, body, err := bodyOf(client, secure.URL+"/x"); err != nil || status != 200 || !strings.HasPrefix(body, "GET "+hostOfServer(secure)) {
		t.Errorf("got %d, %q, %v", status, body, err)
	}
	if refused := p.Refused(); len(refused) != 2 {
		t.Errorf("refused %q", refused)
	}
}

// raw sends a text over a new connection and returns the first and the last line of the answer.
func raw(t *testing.T, address, text string) (first, last string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.WriteString(conn, text) }() // may block: the proxy does not read a header that is too long to its end
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 {
		return "", ""
	}
	lines := strings.Split(strings.TrimSpace(string(answer)), "\n")
	return strings.TrimSpace(lines[0]), lines[len(lines)-1]
}

func TestProxyRefusesOddRequests(t *testing.T) {
	t.Parallel()
	p, address := newTestProxy(t, ProxyOptions{Hosts: []string{"a.example:80", "a.example"}, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("it connected")
		return nil, io.EOF
	}})
	for _, c := range []struct{ text, status, says string }{
		{"GET / HTTP/1.1\r\nHost: a.example\r\n", "400", "this is a proxy"},
		{"GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n", "400", "this is a proxy"},
		{"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n", "400", "this is a proxy"},
		{"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n", "403", "sends the installer to b.example:80,"},
		{"GET http://a.example:81/ HTTP/1.1\r\nHost: a.example\r\n", "403", "a.example:81"},
		{"GET http://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n", "403", "b.example:80"},
		{"GET http:///x HTTP/1.1\r\nHost: a.example\r\n", "400", "this is a proxy"},
		{"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n", "405", "may only read"},
		{"CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n", "400", ""},
		{"CONNECT a.example:80:443 HTTP/1.1\r\nHost: a.example\r\n", "400", ""},
		{"CONNECT b.example:443 HTTP/1.1\r\nHost: a.example:443\r\n", "403", "sends the installer to b.example,"},
		{"CONNECT a.example@b.example:443 HTTP/1.1\r\nHost: a.example\r\n", "403", "sends the installer to b.example,"},
		{"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a.example\r\n", "403", "127.0.0.1:22"},
		{"CONNECT /x HTTP/1.1\r\nHost: a.example\r\n", "400", ""},
		{"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: " + strings.Repeat("x", 2*maxProxyHeader) + "\r\n", "431", ""},
		{"nonsense\r\n", "400", ""},
	} {
		first, last := raw(t, address, c.text+"Connection: close\r\n\r\n")
		if !strings.HasPrefix(first, "HTTP/1.1 "+c.status) || !strings.Contains(last, c.says) {
			t.Errorf("%.60q: got %q, %q, want %s, %q", c.text, first, last, c.status, c.says)
		}
	}
	if got, want := p.Refused(), []string{"b.example:80", "a.example:81", "b.example", "127.0.0.1:22"}; !slices.Equal(got, want) {
		t.Errorf("refused %q, want %q", got, want)
	}
}

func TestProxyFailsWithASentence(t *testing.T) {
	t.Parallel()
	gone := index.Unreachable()
	p, address := newTestProxy(t, ProxyOptions{Hosts: []string{gone}})
	for _, text := range []string{"GET http://" + gone + "/ HTTP/1.0\r\n\r\n", "CONNECT " + gone + " HTTP/1.0\r\n\r\n"} {
		first, last := raw(t, address, text)
		if !strings.Contains(first, "502") || !strings.Contains(last, "the package index at "+gone+" refuses connections") {
			t.Errorf("got %q, %q", first, last)
		}
	}
	if len(p.Refused()) != 0 {
		t.Errorf("refused %q", p.Refused())
	}
}
