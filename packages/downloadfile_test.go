package packages

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// The file may change between the first response and the one with which the download resumes. The hash is then wrong, and the
// download must begin anew.
func TestDownloadResumedFromAnotherFile(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("new"), 1000)
	var ranges []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range")+r.Header.Get("Accept-Encoding"))
		if len(ranges) == 1 {
			w.Header().Set("Content-Length", "3000")
			_, _ = w.Write(bytes.Repeat([]byte("old"), 500))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	x := newTestIndex(t, PipConfig{IndexURL: server.URL}, IndexOptions{})
	dir := t.TempDir()
	_, err := x.Download(t.Context(), dir, []Wanted{{Name: "a", URL: server.URL + "/a-1-py3-none-any.whl", SHA256: hashOf(content)}}, DownloadOptions{})
	if err != nil {
		t.Error(err)
	}
	checkDirectory(t, dir, map[string][]byte{"a-1-py3-none-any.whl": content})
	if want := []string{"identity", "bytes=1500-identity", "identity"}; !slices.Equal(ranges, want) {
		t.Errorf("asked for %q, want %q", ranges, want)
	}
}

func TestDownloadGivesUpOnASilentHost(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte("some"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	x := newTestIndex(t, PipConfig{IndexURL: server.URL, Timeout: time.Second}, IndexOptions{})
	dir := t.TempDir()
	_, err := x.Download(t.Context(), dir, []Wanted{{Name: "a", URL: server.URL + "/a-1-py3-none-any.whl"}}, DownloadOptions{})
	failed := new(IndexError)
	if !errors.As(err, &failed) || !failed.Timeout || asked.Load() != 3 {
		t.Errorf("got %v after %d requests", err, asked.Load())
	}
	checkDirectory(t, dir, nil)
}

func TestDownloadOfLocalFiles(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	wheels := base + "/wheels"
	if err := errors.Join(os.MkdirAll(wheels+"/sub", 0o700), os.WriteFile(base+"/out.whl", []byte("out"), 0o600), os.WriteFile(wheels+"/sub/in.whl", []byte("in"), 0o600),
		os.Symlink("sub/in.whl", wheels+"/link.whl"), os.Symlink("../out.whl", wheels+"/leak.whl"), syscall.Mkfifo(wheels+"/pipe.whl", 0o600)); err != nil {
		t.Fatal(err)
	}
	x := newTestIndex(t, PipConfig{NoIndex: true, FindLinks: []string{wheels}}, IndexOptions{})
	for _, c := range []struct {
		path, sum, failure string
		max                int64
	}{
		{"/sub/in.whl", "", "", 2},
		{"/link.whl", hashOf([]byte("in")), "", 0},
		{"/sub/in.whl", hashOf(nil), "is not the file", 0},
		{"/sub/in.whl", "", "may be 1 B", 1},
		{"/none.whl", "", "does not have none.whl", 0},
		{"/pipe.whl", "", "no regular file", 0},
		{"/leak.whl", "", "cannot be read", 0},
		{"/../out.whl", "", "outside the directories", 0},
	} {
		dir := t.TempDir()
		_, err := x.Download(t.Context(), dir, []Wanted{{Name: "x", URL: "file://" + wheels + c.path, SHA256: c.sum}}, DownloadOptions{MaxBytes: c.max})
		want := map[string][]byte{filepath.Base(c.path): []byte("in")}
		if c.failure != "" {
			want = nil
		}
		if c.failure == "" && err != nil || c.failure != "" && (err == nil || !strings.Contains(err.Error(), c.failure)) {
			t.Errorf("%s: got %v, want %q", c.path, err, c.failure)
		}
		checkDirectory(t, dir, want)
	}
	got := x.Sizes(t.Context(), []Wanted{{URL: fileURL(wheels + "/sub/in.whl")}, {URL: fileURL(base + "/out.whl")}, {URL: fileURL(wheels + "/leak.whl")}}, nil)
	if !slices.Equal(got, []int64{2, -1, -1}) {
		t.Errorf("sizes are %d", got)
	}
}

func TestDownloadMatrix(t *testing.T) {
	t.Parallel()
	const size = 500_000
	for _, c := range []struct {
		name     string
		how      func(*index.File)
		max      int64
		want     error // its type, and fields that are not zero
		requests int   // with GET
	}{
		{"well", func(*index.File) {}, 0, nil, 1},
		{"exactly the bound", func(*index.File) {}, size, nil, 1},
		{"no length", func(f *index.File) { f.Chunked = true }, size, nil, 1},
		{"broken twice", func(f *index.File) { f.Status, f.Times = 503, 2 }, 0, nil, 3},
		{"broken", func(f *index.File) { f.Status = 500 }, 0, &IndexError{Status: 500}, 3},
		{"busy once", func(f *index.File) { f.Status, f.Times = 429, 1 }, 0, nil, 2},
		{"not found", func(f *index.File) { f.Status = 404 }, 0, &NotFoundError{Name: "a-1-py3-none-any.whl"}, 1},
		{"forbidden", func(f *index.File) { f.Status = 403 }, 0, &IndexError{Status: 403}, 1},
		{"strange", func(f *index.File) { f.Status = 206 }, 0, &IndexError{Status: 206}, 3},
		{"resumed", func(f *index.File) { f.Truncate, f.Times = 1000, 1 }, size, nil, 2},
		{"resumed twice", func(f *index.File) { f.Truncate, f.Times = 200_000, 2 }, size, nil, 3},
		{"started again", func(f *index.File) { f.Truncate, f.Times, f.NoRanges = 1000, 2, true }, size, nil, 3},
		{"always cut", func(f *index.File) { f.Truncate, f.NoRanges = 1000, true }, 0, &IndexError{}, 3},
		{"another hash", func(f *index.File) { f.Content = append([]byte("x"), f.Content[1:]...) }, 0, &HashError{Name: "a-1-py3-none-any.whl"}, 1},
		{"too large", func(*index.File) {}, size - 1, &TooLargeError{Name: "a-1-py3-none-any.whl", Bytes: size, MaxBytes: size - 1}, 1},
		{"too large without length", func(f *index.File) { f.Chunked = true }, size / 2, &TooLargeError{MaxBytes: size / 2}, 1},
		{"far too large", func(f *index.File) { f.Stream = 300 << 20 }, size, &TooLargeError{Bytes: 300 << 20}, 1},
		{"redirect", func(f *index.File) { f.RedirectTo = "https://elsewhere.example/a.whl" }, 0, &HostError{Host: "elsewhere.example"}, 1},
		{"redirect to a file", func(f *index.File) { f.RedirectTo = "file:///etc/a.whl" }, 0, &IndexError{}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t)
			f := wheelOf("a", size)
			wanted, content := wantedOf(s, f), f.Content
			c.how(&f)
			s.Add(index.Project{Name: "a", Files: []index.File{f}})
			x := newTestIndex(t, PipConfig{IndexURL: s.URL()}, IndexOptions{})
			dir := t.TempDir()
			paths, err := x.Download(t.Context(), dir, []Wanted{wanted}, DownloadOptions{MaxBytes: c.max})
			if got := s.WheelDownloads(); got != c.requests {
				t.Errorf("%d requests, want %d: %v", got, c.requests, err)
			}
			if c.want == nil {
				if err != nil || len(paths) != 1 {
					t.Fatalf("got %q, %v", paths, err)
				}
				checkDirectory(t, dir, map[string][]byte{f.Name: content})
				return
			}
			if paths != nil || err == nil || strings.Contains(err.Error(), "http://") {
				t.Fatalf("got %q, %v", paths, err)
			}
			got, want := reflect.ValueOf(err), reflect.ValueOf(c.want)
			if got.Type() != want.Type() {
				t.Fatalf("got %T: %v", err, err)
			}
			for i := range want.Elem().NumField() {
				if field := want.Elem().Field(i); !field.IsZero() && !field.Equal(got.Elem().Field(i)) {
					t.Errorf("got %+v, want %+v", err, c.want)
				}
			}
			checkDirectory(t, dir, nil)
		})
	}
}
