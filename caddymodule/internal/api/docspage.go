package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	caddyencode "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// The interactive documentation is Swagger UI: Scalar is twice its size, and reaches for fonts and a proxy of its makers
// unless told not to. It is copied from npm as docspage/package-lock.json pins it (make docs-assets), since the Go
// modules that embed it are a year behind.

//go:embed docspage/*.html docspage/*.css docspage/*.js docspage/*.svg docspage/*.gz docspage/*.txt
var docsFiles embed.FS

// docsPolicy keeps the page to this server: nothing is loaded from elsewhere, and nothing is sent there. It allows no
// inline script and no inline style.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'none'; frame-ancestors 'none'; base-uri 'none'"

// AddDocs adds to rs the page at /docs, and what it loads below.
func AddDocs(rs edge.Routes) error {
	err := fs.WalkDir(docsFiles, "docspage", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := docsFiles.ReadFile(file)
		if err != nil {
			return err
		}
		name, compressed := strings.CutSuffix(path.Base(file), ".gz")
		route := "/docs/" + name
		if name == "index.html" {
			route = "/docs"
		}
		serve := newDocument(docsTypes[path.Ext(name)], content, compressed).serve
		rs.Add(http.MethodGet, route, func(w http.ResponseWriter, r *http.Request) {
			docsHeader(w)
			serve(w, r)
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the embedded documentation: %w", err)
	}
	rs.Add(http.MethodGet, "/docs/", func(w http.ResponseWriter, r *http.Request) {
		docsHeader(w)
		if r.URL.Path != "/docs/" {
			edge.WriteProblem(w, edge.NewProblem(http.StatusNotFound, metrics.KindNotFound, r.URL.Path+" is no part of the documentation, which is at /docs"))
			return
		}
		// The addresses in the page are relative to /docs. This one is, too: http.Redirect would make it absolute, and
		// lose the prefix.
		w.Header().Set("Location", "../docs")
		w.WriteHeader(http.StatusPermanentRedirect)
	})
	return nil
}

func docsHeader(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Security-Policy", docsPolicy)
	header.Set("Referrer-Policy", "no-referrer")
}

var docsTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// document is a body that does not change while the server runs.
type document struct {
	contentType string
	content     []byte
	compressed  bool // content is gzip
	etag        string
}

func newDocument(contentType string, content []byte, compressed bool) *document {
	sum := sha256.Sum256(content)
	return &document{contentType, content, compressed, base64.RawURLEncoding.EncodeToString(sum[:12])}
}

// serve answers GET and HEAD. A client asks each time whether it still has the right one: no name here changes with
// its content.
func (d *document) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-cache")
	etag, unpack := `"`+d.etag+`"`, false
	if d.compressed {
		header.Set("Vary", "Accept-Encoding")
		if unpack = !slices.Contains(caddyencode.AcceptedEncodings(r, nil), "gzip"); unpack {
			etag = `"` + d.etag + `-plain"`
		}
	}
	header.Set("ETag", etag)
	if known := r.Header.Get("If-None-Match"); known == "*" || strings.Contains(known, etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", d.contentType)
	if !unpack {
		if d.compressed {
			header.Set("Content-Encoding", "gzip")
		}
		header.Set("Content-Length", strconv.Itoa(len(d.content)))
		_, _ = w.Write(d.content) // fails when the client is gone
		return
	}
	reader, err := gzip.NewReader(bytes.NewReader(d.content))
	if err != nil {
		panic(err) // embedded, and tested
	}
	_, _ = io.Copy(w, reader) //nolint:gosec // the content is embedded and of known size; fails when the client is gone
}
