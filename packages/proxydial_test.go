package packages

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// A Proxy reaches hosts through an upstream proxy: here another Proxy, whose Dial resolves the test's names.
func TestProxyGoesThroughAnother(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.Host) })
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	outer, outerAddress := newTestProxy(t, ProxyOptions{Hosts: []string{"plain.test:80", "secure.test"}, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := map[string]string{"plain.test:80": hostOfServer(plain), "secure.test:443": hostOfServer(secure)}[addr]
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}})
	p, address := newTestProxy(t, ProxyOptions{Hosts: []string{"plain.test:80", "secure.test", "other.test"}, Upstream: outerAddress})
	client := clientOf(t, address, secure)
	for _, url := range []string{"http://plain.test/", "https://secure.test/"} {
		if status, body, err := bodyOf(client, url); err != nil || status != 200 || !strings.HasPrefix(body, "hello ") {
			t.Errorf("%s: got %d, %q, %v", url, status, body, err)
		}
	}
	if _, last := raw(t, address, "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n"); !strings.Contains(last, "the proxy before it fails (it answers 403 Forbidden)") {
		t.Errorf("got %q", last)
	}
	if got := outer.Refused(); !slices.Equal(got, []string{"other.test"}) || len(p.Refused()) != 0 {
		t.Errorf("refused %q and %q", got, p.Refused())
	}

	x := newTestIndex(t, PipConfig{IndexURL: "https://secure.test/", Proxy: "http://" + outerAddress, TrustedHosts: []string{"secure.test"}}, IndexOptions{})
	if _, err := x.Lookup(t.Context(), "thing"); err == nil || !strings.Contains(err.Error(), "which is no page of an index") {
		t.Errorf("the index does not go through the proxy: %v", err)
	}
}

func TestProxyKnowsItselfToAnother(t *testing.T) {
	t.Parallel()
	var asked []string
	upstream := streamServer(t, func(conn net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		asked = append(asked, r.Method+" "+r.RequestURI+" "+r.Header.Get("Proxy-Authorization"))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nhello")
	})
	_, address := newTestProxy(t, ProxyOptions{Hosts: []string{"a.test"}, Upstream: "http://me:p%40ss@" + upstream})
	_, reader := connect(t, address, "a.test:443", "")
	if got, err := io.ReadAll(reader); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if want := "CONNECT a.test:443 Basic " + base64.StdEncoding.EncodeToString([]byte("me:p@ss")); len(asked) != 1 || asked[0] != want {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestProxyGoesThroughSOCKS(t *testing.T) {
	t.Parallel()
	upstream := streamServer(t, func(conn net.Conn) {
		message := make([]byte, 3)
		if _, err := io.ReadFull(conn, message); err != nil {
			return
		}
		_, _ = conn.Write([]byte{5, 0})
		message = make([]byte, 4+1+len("a.test")+2)
		if _, err := io.ReadFull(conn, message); err != nil {
			return
		}
		_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		_, _ = conn.Write(message[5:11])
	})
	_, address := newTestProxy(t, ProxyOptions{Hosts: []string{"a.test"}, Upstream: "socks5h://" + upstream})
	_, reader := connect(t, address, "a.test:443", "")
	if got, err := io.ReadAll(reader); err != nil || string(got) != "a.test" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestProxyOfTheEnvironment(t *testing.T) { // not parallel: it changes the environment
	t.Setenv("HTTPS_PROXY", "http://secure.example:3128")
	t.Setenv("HTTP_PROXY", "plain.example:3128")
	t.Setenv("NO_PROXY", "inside.example")
	for _, c := range []struct{ setting, url, want string }{
		{"", "https://a.example/", "http://secure.example:3128"},
		{"", "http://a.example/", "http://plain.example:3128"},
		{"", "https://inside.example/", ""},
		{"", "https://127.0.0.1/", ""},
		{"set.example:1", "https://a.example/", "http://set.example:1"},
		{"set.example:1", "http://inside.example/", "http://set.example:1"},
		{"set.example:1", "http://localhost/", ""},
	} {
		proxy, err := upstreamProxy(c.setting)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if found, err := proxy(u); err != nil {
			t.Error(err)
		} else if found != nil {
			got = found.String()
		}
		if got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
