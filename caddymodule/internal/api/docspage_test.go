package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
)

// newDocsSite serves the documentation, with 418 for whatever is not ours.
func newDocsSite(t *testing.T) *httptest.Server {
	t.Helper()
	rs := edge.Routes{}
	if err := AddDocs(rs); err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !rs.Serve(w, r, zap.NewNop()) {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(site.Close)
	return site
}

// checkDocsHeader holds an answer to what all of them carry.
func checkDocsHeader(t *testing.T, header http.Header) {
	t.Helper()
	policy := header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "img-src 'self' data:", "connect-src 'self'",
		"form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("%q is missing in %q", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("got %v", header)
	}
}

// loaded are the addresses that a page loads.
var loaded = regexp.MustCompile(`(?:src|href)="([^"]*)"`)

func TestDocsPageLoadsWhatIsServed(t *testing.T) {
	t.Parallel()
	site := newDocsSite(t)
	status, page, header := edgetest.Send(t, "GET", site.URL+"/docs", nil, nil)
	if status != 200 || header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d %v", status, header)
	}
	checkDocsHeader(t, header)
	base, err := url.Parse(site.URL + "/docs")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]int{}
	for _, found := range loaded.FindAllStringSubmatch(page, -1) {
		reference, err := url.Parse(found[1])
		if err != nil || reference.IsAbs() || strings.HasPrefix(found[1], "/") {
			t.Fatalf("%s is not relative", found[1])
		}
		if found[1] == "openapi.json" {
			continue
		}
		status, body, header := edgetest.Send(t, "GET", base.ResolveReference(reference).String(), nil, nil)
		if status != 200 || body == "" || header.Get("ETag") == "" || header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: got %d, %d bytes, %v", found[1], status, len(body), header)
		}
		checkDocsHeader(t, header)
		types[header.Get("Content-Type")]++
	}
	if types["text/javascript; charset=utf-8"] != 2 || types["text/css; charset=utf-8"] != 2 || types["image/svg+xml"] != 1 {
		t.Errorf("the page loads %v", types)
	}
	if inline := regexp.MustCompile(`<style|\sstyle=|\son[a-z]+=|<script[^>]*>[^<]`).FindString(page); inline != "" {
		t.Errorf("the policy forbids %q", inline)
	}
}

// What is ours asks nobody else. What is Swagger UI's is held to that by the policy, and by a test with a browser.
func TestDocsNameNoOtherHost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"index.html", "start.js", "page.css"} {
		text, err := docsFiles.ReadFile("docspage/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if address := regexp.MustCompile(`[a-z]+://|["'(]//`).Find(text); address != nil {
			t.Errorf("%s has %q", name, address)
		}
	}
	text, err := docsFiles.ReadFile("docspage/start.js")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("validatorUrl: null")) {
		t.Error("Swagger UI would ask its validator")
	}
}

func TestDocsMethodsAndUnknownPaths(t *testing.T) {
	t.Parallel()
	site := newDocsSite(t)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"HEAD", "/docs", 200},
		{"HEAD", "/docs/start.js", 200},
		{"HEAD", "/docs/swagger-ui.css", 200},
		{"GET", "/docs/swagger-ui.LICENSE.txt", 200},
		{"GET", "/docs/swagger-ui-bundle.js.LICENSE.txt", 200},
		{"POST", "/docs", 405},
		{"DELETE", "/docs/", 405},
		{"PUT", "/docs/start.js", 405},
		{"POST", "/docs/unknown", 405},
		{"GET", "/docs/unknown.js", 404},
		{"GET", "/docs/index.html", 404},
		{"GET", "/docs/swagger-ui.css.gz", 404},
		{"GET", "/docs/package.json", 404},
		{"GET", "/docs/a/b", 404},
		{"GET", "/docs/../docspage.go", 404},
		{"GET", "/documents", http.StatusTeapot},
		{"GET", "/docs.html", http.StatusTeapot},
		{"GET", "/a/docs/start.js", http.StatusTeapot},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			t.Parallel()
			status, body, header := edgetest.Send(t, c.method, site.URL+c.path, nil, nil)
			if status != c.status {
				t.Fatalf("got %d", status)
			}
			if c.method == "HEAD" && body != "" {
				t.Errorf("got a body: %s", body)
			}
			switch status {
			case 404:
				checkDocsHeader(t, header)
				edgetest.CheckProblem(t, status, body, header)
			case 405:
				if header.Get("Allow") != "GET, HEAD" {
					t.Errorf("got Allow %q", header.Get("Allow"))
				}
				edgetest.CheckProblem(t, status, body, header)
			}
		})
	}
}

// A prefix in front of the path would be lost in an absolute Location.
func TestDocsWithASlashGoesToTheOneWithout(t *testing.T) {
	t.Parallel()
	site := newDocsSite(t)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(site.URL + "/docs/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != "../docs" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

func TestDocsAreNotSentTwice(t *testing.T) {
	t.Parallel()
	site := newDocsSite(t)
	tags := map[string]bool{}
	for _, c := range []struct{ path, encoding string }{{"/docs", ""}, {"/docs/swagger-ui.css", "gzip"}, {"/docs/swagger-ui.css", "identity"}} {
		_, _, header := edgetest.Send(t, "GET", site.URL+c.path, nil, map[string]string{"Accept-Encoding": c.encoding})
		tag := header.Get("ETag")
		if tag == "" || tags[tag] {
			t.Errorf("%v: the tag %q is not its own", c, tag)
		}
		tags[tag] = true
		for known, want := range map[string]int{tag: 304, "W/" + tag: 304, `"other", ` + tag: 304, "*": 304, `"other"`: 200} {
			status, body, header := edgetest.Send(t, "GET", site.URL+c.path, nil, map[string]string{"Accept-Encoding": c.encoding, "If-None-Match": known})
			if status != want || status == 304 && (body != "" || header.Get("ETag") != tag) {
				t.Errorf("%v %s: got %d, %d bytes, %v", c, known, status, len(body), header)
			}
		}
	}
}

// unpack reads an embedded asset.
func unpack(t *testing.T, name string) []byte {
	t.Helper()
	packed, err := docsFiles.Open("docspage/" + name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }()
	reader, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestDocsAssetsAreSentAsTheClientWants(t *testing.T) {
	t.Parallel()
	site := newDocsSite(t)
	for _, name := range []string{"swagger-ui-bundle.js", "swagger-ui.css"} {
		want := unpack(t, name)
		for accepted, encoding := range map[string]string{"gzip": "gzip", "br, gzip;q=0.5": "gzip", "identity": "", "gzip;q=0": ""} {
			_, body, header := edgetest.Send(t, "GET", site.URL+"/docs/"+name, nil, map[string]string{"Accept-Encoding": accepted})
			if header.Get("Content-Encoding") != encoding || header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s, %q: got %v", name, accepted, header)
			}
			if encoding == "gzip" {
				reader, err := gzip.NewReader(strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				plain, err := io.ReadAll(reader)
				if err != nil {
					t.Fatal(err)
				}
				body = string(plain)
			}
			if body != string(want) {
				t.Errorf("%s, %q: another content", name, accepted)
			}
		}
	}
}

// make docs-assets was run after the pin was changed.
func TestDocsAssetsAreThePinnedOnes(t *testing.T) {
	t.Parallel()
	var pin struct{ Dependencies map[string]string }
	var lock struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	for name, into := range map[string]any{"package.json": &pin, "package-lock.json": &lock} {
		text, err := os.ReadFile("docspage/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	version, locked := pin.Dependencies["swagger-ui-dist"], lock.Packages["node_modules/swagger-ui-dist"]
	if locked.Version != version || !strings.HasPrefix(locked.Integrity, "sha512-") {
		t.Errorf("package.json has %s, package-lock.json %+v", version, locked)
	}
	if !bytes.Contains(unpack(t, "swagger-ui-bundle.js"), []byte(`PACKAGE_VERSION:"`+version+`"`)) {
		t.Errorf("the embedded Swagger UI is not %s: run make docs-assets", version)
	}
}
