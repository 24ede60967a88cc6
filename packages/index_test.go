package packages

import (
	"context"
	"encoding/pem"
	"errors"
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

// newTestIndex returns an index that logs nothing by default and is closed at the end of the test.
func newTestIndex(t *testing.T, c PipConfig, o IndexOptions) *Index {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	x, err := NewIndex(c, o)
	if err != nil {
		t.Fatal(err)
	}
	x.backoff, x.maxPage = time.Millisecond, 1<<20
	t.Cleanup(x.Close)
	return x
}

func newTestServer(t *testing.T) *index.Server {
	t.Helper()
	s := index.New()
	t.Cleanup(s.Close)
	return s
}

// withAccount puts an account into a URL.
func withAccount(url, account string) string {
	return strings.Replace(url, "://", "://"+account+"@", 1)
}

func TestIndexAccountsStayWithTheirHost(t *testing.T) {
	t.Parallel()
	private, public := newTestServer(t), newTestServer(t)
	private.SetAccount("me", "p@ss word")
	private.AddWheels(index.Wheel{Name: "thing", Version: "1"})
	public.AddWheels(index.Wheel{Name: "thing", Version: "2"})
	var seen []string
	spy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"), r.Header.Get("Referer"), r.Header.Get("User-Agent"))
	}))
	t.Cleanup(spy.Close)
	c := PipConfig{IndexURL: withAccount(private.URL(), "me:p%40ss%20word"), ExtraIndexURLs: []string{public.URL()}}
	x := newTestIndex(t, c, IndexOptions{ExtraHosts: []string{strings.TrimPrefix(spy.URL, "http://")}, UserAgent: "tester"})
	page, err := x.Lookup(t.Context(), "thing")
	if err != nil || len(page.Files) != 2 {
		t.Fatalf("got %+v, %v", page, err)
	}
	for _, f := range page.Files {
		if strings.Contains(f.URL, "@") {
			t.Errorf("the account is in %s", f.URL)
		}
	}
	f := index.Wheel{Name: "moved", Version: "1"}.File()
	f.RedirectTo = spy.URL + "/moved-1-py3-none-any.whl"
	private.Add(index.Project{Name: "moved", Files: []index.File{f}})
	_, err = x.Download(t.Context(), t.TempDir(), []Wanted{{Name: "moved", URL: private.FileURL(f.Name)}}, DownloadOptions{})
	if want := []string{"", "", "tester"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("another host was told %q, want %q (%v)", seen, want, err)
	}

	two := newTestIndex(t, PipConfig{IndexURL: "https://a:1@x.example/one/", ExtraIndexURLs: []string{"https://b:2@x.example/two/", "https://c:3@x.example/two/deep"}}, IndexOptions{})
	for _, c := range []struct{ url, user string }{
		{"https://x.example/one/p/", "a"}, {"https://x.example/two/p/", "b"}, {"https://x.example/two/deep/p/", "c"}, {"https://X.EXAMPLE:443/files/f", "a"},
		{"http://x.example/one/", ""}, {"https://y.x.example/one/", ""}, {"https://x.example:8443/one/", ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		two.authorize(r)
		if user, _, _ := r.BasicAuth(); user != c.user {
			t.Errorf("%s is asked as %q, want %q", c.url, user, c.user)
		}
	}
}

func TestIndexCertificates(t *testing.T) {
	t.Parallel()
	s := index.NewTLS()
	t.Cleanup(s.Close)
	s.AddWheels(index.Wheel{Name: "thing", Version: "1"})
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{"right.pem": s.CertPEM(), "empty.pem": nil, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"})} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		config  PipConfig
		failure string
	}{
		{"the system's", PipConfig{}, "certificate that is not trusted"},
		{"file", PipConfig{Cert: dir + "/right.pem"}, ""},
		{"directory", PipConfig{Cert: dir}, ""},
		{"trusted host", PipConfig{TrustedHosts: []string{"localhost"}}, ""},
		{"trusted host and port", PipConfig{TrustedHosts: []string{s.Host()}}, ""},
		{"another trusted port", PipConfig{TrustedHosts: []string{"localhost:1"}}, "certificate that is not trusted"},
		{"no certificate", PipConfig{Cert: dir + "/empty.pem"}, "has no certificate"},
		{"no file", PipConfig{Cert: dir + "/none.pem"}, "cannot be read"},
		{"no client certificate", PipConfig{ClientCert: dir + "/key.pem"}, "client-cert"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.config.IndexURL = s.URL()
			x, err := NewIndex(c.config, IndexOptions{})
			if err == nil {
				defer x.Close()
				_, err = x.Lookup(t.Context(), "thing")
			}
			if c.failure == "" && err != nil || c.failure != "" && (err == nil || !strings.Contains(err.Error(), c.failure)) {
				t.Errorf("got %v, want %q", err, c.failure)
			}
		})
	}
}

func TestIndexSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		config  PipConfig
		options IndexOptions
		hosts   []string
		failure string
	}{
		{"default", PipConfig{DefaultIndexURL: "https://default.example/simple"}, IndexOptions{}, []string{"default.example:443"}, ""},
		{"all", PipConfig{
			IndexURL: "https://A.Example/simple", DefaultIndexURL: "https://default.example/", ExtraIndexURLs: []string{"https://b.example:8443/", "http://127.0.0.1/", "http://[::1]:81/", "https://a.example/"},
			FindLinks: []string{"https://c.example/links.html", "/does/not/exist"},
		}, IndexOptions{ExtraHosts: []string{"d.example", "e.example:80"}},
			[]string{"a.example:443", "b.example:8443", "127.0.0.1:80", "[::1]:81", "c.example:443", "d.example:443", "e.example:80"}, ""},
		{"trusted", PipConfig{IndexURL: "http://a_b.example:81/", TrustedHosts: []string{"a_b.example"}}, IndexOptions{}, []string{"a_b.example:81"}, ""},
		{"no index", PipConfig{IndexURL: "ftp://x", NoIndex: true}, IndexOptions{}, nil, ""},
		{"none", PipConfig{}, IndexOptions{}, nil, "names no index"},
		{"not trusted", PipConfig{IndexURL: "http://user:secret@a.example/"}, IndexOptions{}, nil, `index-url of pip's configuration is "http://a.example/", which anybody`},
		{"another scheme", PipConfig{IndexURL: "file:///x"}, IndexOptions{}, nil, "use an http or https address"},
		{"no URL", PipConfig{IndexURL: "https://user:sec%ret@a.example/"}, IndexOptions{}, nil, `"https://a.example/": use an http`},
		{"extra", PipConfig{IndexURL: "https://a.example", ExtraIndexURLs: []string{"a.example"}}, IndexOptions{}, nil, "extra-index-url"},
		{"trusted host", PipConfig{NoIndex: true, TrustedHosts: []string{"https://x/"}}, IndexOptions{}, nil, "trusted-host"},
		{"extra host", PipConfig{NoIndex: true}, IndexOptions{ExtraHosts: []string{"*.example"}}, nil, "packages hosts"},
		{"find-links", PipConfig{NoIndex: true, FindLinks: []string{"http://a.example/"}}, IndexOptions{}, nil, "find-links"},
		{"file elsewhere", PipConfig{NoIndex: true, FindLinks: []string{"file://a.example/x"}}, IndexOptions{}, nil, "find-links"},
		{"proxy", PipConfig{NoIndex: true, Proxy: "gopher://user:secret@proxy.example"}, IndexOptions{}, nil, `"gopher://proxy.example": use an http`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.options.Logger = slog.New(slog.DiscardHandler)
			x, err := NewIndex(c.config, c.options)
			if c.failure != "" {
				if err == nil || !strings.Contains(err.Error(), c.failure) || strings.Contains(err.Error(), "sec") && !strings.Contains(err.Error(), "section") {
					t.Errorf("got %v, want %q", err, c.failure)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			if !slices.Equal(x.Hosts(), c.hosts) {
				t.Errorf("got %q, want %q", x.Hosts(), c.hosts)
			}
		})
	}
}

func TestIndexHostsHaveOneForm(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"a.example": "a.example:443", "A.EXAMPLE:80": "a.example:80", "[::1]:443": "[::1]:443", "[0:0::1]": "[::1]:443", "bücher.example": "xn--bcher-kva.example:443",
		"": "", ":80": "", "a:b": "", "a/b": "", "u@a": "", "a b": "", "*": "", "a:": "", "a?x": "", "a#x": "", "::1": "",
	} {
		if got := normalHost(host); got != want {
			t.Errorf("%q is %q, want %q", host, got, want)
		}
	}
}

func TestIndexErrorsCanBeShown(t *testing.T) {
	t.Parallel()
	u, err := url.Parse("https://me:secret@a.example/simple/")
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for _, c := range []struct {
		ctx     context.Context
		err     error
		says    string
		timeout bool
	}{
		{t.Context(), &net.DNSError{Err: "no such host", Name: "a.example", IsNotFound: true}, "a.example cannot be found", false},
		{t.Context(), &net.DNSError{Err: "timeout", Name: "a.example", IsTimeout: true}, "a.example did not answer in time", true},
		{t.Context(), &url.Error{Op: "Get", URL: "https://me:secret@b.example/", Err: io.EOF}, "b.example closed the connection", false},
		{t.Context(), &url.Error{Op: "Get", URL: "https://me:secret@b.example:8443/", Err: errors.New("strange")}, "b.example:8443 cannot be used (strange)", false},
		{ended, context.DeadlineExceeded, "a.example did not answer in time", true},
	} {
		got := new(IndexError)
		if err := requestError(c.ctx, u, c.err); !errors.As(err, &got) || !strings.Contains(err.Error(), c.says) || got.Timeout != c.timeout || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want %s", err, c.says)
		}
	}
}

// Whatever an operator has mistyped, no password of it comes into an error or the log.
func TestMistypedAddressesKeepTheirPasswords(t *testing.T) {
	t.Parallel()
	for _, typed := range []string{
		"alice:secret@a.example/simple", "//alice:secret@a.example", "alice:secret@a.example:port/", "http:alice:secret@a.example/",
		"http://alice:secret%@a.example/", "http://alice:se/cret@a.example:x/", "http://alice:secret@", "http://a.example:x/?token=secret",
		"http://a.example:x/#secret", "file:alice:secret@a.example", "file://alice:secret@a.example/x", "gopher://alice:secret?@a.example/x",
	} {
		for _, c := range []struct {
			setting string
			config  PipConfig
			options IndexOptions
		}{
			{"index-url", PipConfig{IndexURL: typed}, IndexOptions{}},
			{"extra-index-url", PipConfig{IndexURL: "https://a.example/", ExtraIndexURLs: []string{typed}}, IndexOptions{}},
			{"find-links", PipConfig{NoIndex: true, FindLinks: []string{typed}}, IndexOptions{}},
			{"trusted-host", PipConfig{NoIndex: true, TrustedHosts: []string{typed}}, IndexOptions{}},
			{"proxy", PipConfig{NoIndex: true, Proxy: typed}, IndexOptions{}},
			{"hosts", PipConfig{NoIndex: true}, IndexOptions{ExtraHosts: []string{typed}}},
		} {
			var log strings.Builder
			c.options.Logger = slog.New(slog.NewTextHandler(&log, nil))
			x, err := NewIndex(c.config, c.options)
			if err == nil {
				x.Close()
			}
			if said := fmt.Sprint(err, log.String()); strings.Contains(said, "secret") || strings.Contains(said, "se/cret") {
				t.Errorf("%s %s: %s", c.setting, typed, said)
			}
		}
	}
}
