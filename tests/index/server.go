package index

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is a package index on loopback. All methods may be called concurrently.
type Server struct {
	http  *httptest.Server
	ended chan struct{}
	once  sync.Once

	mu             sync.Mutex
	files          []*served // in the order of pages
	projects       map[string]bool
	noJSON, noHTML bool
	down           bool
	pageDelay      time.Duration
	pageStatus     int
	user, password string
	requests       []string
	wheels         int
}

// New starts an index that speaks plain HTTP. It has no projects.
func New() *Server {
	s := newServer()
	s.http.Start()
	return s
}

// NewTLS starts one that speaks HTTPS as localhost, with a certificate of its own that CertPEM returns.
func NewTLS() *Server {
	s := newServer()
	s.http.TLS = &tls.Config{Certificates: []tls.Certificate{newCertificate()}}
	s.http.StartTLS()
	_, port, err := net.SplitHostPort(s.http.Listener.Addr().String())
	must(err)
	s.http.URL = "https://localhost:" + port // a name, since some pips cannot check the certificate of an address
	return s
}

func newServer() *Server {
	s := &Server{ended: make(chan struct{}), projects: map[string]bool{}}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // tests make clients leave
	return s
}

// URL returns the index-url, which ends in a slash.
func (s *Server) URL() string { return s.http.URL + "/simple/" }

// Host returns HOST:PORT.
func (s *Server) Host() string { return s.http.URL[strings.LastIndexByte(s.http.URL, '/')+1:] }

// FileURL returns the address of a file.
func (s *Server) FileURL(name string) string { return s.http.URL + "/files/" + name }

// CertPEM returns the certificate of a server that speaks HTTPS.
func (s *Server) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.TLS.Certificates[0].Certificate[0]})
}

// Close ends the server and what it still answers. It may be called twice.
func (s *Server) Close() {
	s.once.Do(func() { close(s.ended) })
	s.http.CloseClientConnections()
	s.http.Close()
}

// Add lists more files of a project. A file with a name that is there already takes its place.
func (s *Server) Add(p Project) {
	project := Canonical(p.Name)
	for _, f := range p.Files {
		f := newServed(project, f)
		s.mu.Lock()
		if i := slices.IndexFunc(s.files, func(other *served) bool { return other.Name == f.Name }); i >= 0 {
			s.files[i] = f
		} else {
			s.files = append(s.files, f)
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.projects[project] = true
	s.mu.Unlock()
}

// AddWheels builds and lists wheels, each in its own project.
func (s *Server) AddWheels(wheels ...Wheel) {
	for _, w := range wheels {
		s.Add(Project{Name: w.Name, Files: []File{w.File()}})
	}
}

// set changes a setting.
func (s *Server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// SetFormats says which kinds of page are served; both at first.
func (s *Server) SetFormats(json, html bool) { s.set(func() { s.noJSON, s.noHTML = !json, !html }) }

// SetDown makes the server close every connection without an answer.
func (s *Server) SetDown(down bool) { s.set(func() { s.down = down }) }

// SetPages delays all pages, as File.Delay, and answers a status in their place when that is not 0.
func (s *Server) SetPages(delay time.Duration, status int) {
	s.set(func() { s.pageDelay, s.pageStatus = delay, status })
}

// SetAccount makes the server refuse who has another account.
func (s *Server) SetAccount(user, password string) {
	s.set(func() { s.user, s.password = user, password })
}

// Requests returns what was asked for since the start, as "GET /simple/x/".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// WheelDownloads returns how often a wheel was asked for with GET; one that is asked for in ranges counts for each.
func (s *Server) WheelDownloads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wheels
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".whl") {
		s.wheels++
	}
	down, account, delay, status := s.down, s.user+":"+s.password, s.pageDelay, s.pageStatus
	s.mu.Unlock()
	if down {
		abort()
	}
	if user, password, _ := r.BasicAuth(); account != ":" && user+":"+password != account {
		w.Header().Set("WWW-Authenticate", `Basic realm="index"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	if name, ok := strings.CutPrefix(r.URL.Path, "/files/"); ok {
		s.serveFile(w, r, name)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/simple/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.wait(r, delay)
	if status != 0 {
		http.Error(w, "as it was told to", status)
		return
	}
	project := strings.TrimSuffix(rest, "/")
	if rest != "" && rest != Canonical(project)+"/" { // as real indexes do
		http.Redirect(w, r, "/simple/"+Canonical(project)+"/", http.StatusMovedPermanently)
		return
	}
	s.servePage(w, r, project)
}

// abort ends the connection instead of an answer.
func abort() { panic(http.ErrAbortHandler) }

// wait ends early with the client or the server.
func (s *Server) wait(r *http.Request, delay time.Duration) {
	if delay <= 0 {
		return
	}
	select {
	case <-time.After(delay):
	case <-s.ended:
	case <-r.Context().Done():
	}
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, name string) {
	base, isMetadata := strings.CutSuffix(name, ".metadata")
	s.mu.Lock()
	i := slices.IndexFunc(s.files, func(f *served) bool { return f.Name == base })
	if i < 0 {
		s.mu.Unlock()
		http.NotFound(w, r)
		return
	}
	f := s.files[i]
	fails := f.Times == 0 || f.used < f.Times
	if r.Method == http.MethodGet && !isMetadata {
		f.used++
	}
	s.mu.Unlock()
	if isMetadata {
		if f.Metadata == nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(f.Metadata)
		return
	}
	if fails {
		s.wait(r, f.Delay)
	}
	switch {
	case f.RedirectTo != "":
		http.Redirect(w, r, f.RedirectTo, http.StatusFound)
	case f.Status != 0 && fails:
		http.Error(w, "as it was told to", f.Status)
	default:
		f.write(w, r, fails)
	}
}

// write sends the file, or, when it fails, less than that.
func (f *served) write(w http.ResponseWriter, r *http.Request, fails bool) {
	var content io.ReadSeeker = bytes.NewReader(f.Content)
	if f.Stream > 0 {
		content = io.NewSectionReader(zeros{}, 0, f.Stream)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if f.NoRanges || f.Chunked {
		r.Header.Del("Range")
	}
	out := w
	if f.Truncate > 0 && fails {
		out = &truncated{w, f.Truncate, f.size() - f.Truncate}
	}
	if f.Chunked {
		w.(http.Flusher).Flush() // the length is not known then
		_, _ = io.Copy(out, content)
		return
	}
	http.ServeContent(out, r, "", time.Time{}, content)
}

// truncated closes the connection some bytes before the end.
type truncated struct {
	http.ResponseWriter
	missing, left int64
}

// WriteHeader looks at the length, which a range makes less.
func (t *truncated) WriteHeader(status int) {
	if n, err := strconv.ParseInt(t.Header().Get("Content-Length"), 10, 64); err == nil {
		t.left = n - t.missing
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *truncated) Write(b []byte) (int, error) {
	if int64(len(b)) <= t.left {
		t.left -= int64(len(b))
		return t.ResponseWriter.Write(b)
	}
	_, _ = t.ResponseWriter.Write(b[:max(t.left, 0)])
	t.ResponseWriter.(http.Flusher).Flush()
	abort()
	return 0, nil
}

// ReadAt makes a section of zeros possible.
func (zeros) ReadAt(p []byte, _ int64) (int, error) { return zeros{}.Read(p) }

// Unreachable returns a HOST:PORT of loopback that nothing listens on.
func Unreachable() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer func() { must(l.Close()) }()
	return l.Addr().String()
}

// String names the server in messages of tests.
func (s *Server) String() string { return fmt.Sprintf("test index at %s", s.http.URL) }
