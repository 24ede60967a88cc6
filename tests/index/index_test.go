package index

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func newTestServer(t *testing.T) *Server {
	t.Helper()
	s := New()
	t.Cleanup(s.Close)
	return s
}

// get returns status, headers and body, and the error of reading it.
func get(t *testing.T, url, accept string) (int, http.Header, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(body), err
}

func TestPip(t *testing.T) {
	t.Parallel()
	pip := NewPip(t)
	for _, c := range []struct {
		name       string
		json, html bool
	}{{"JSON", true, false}, {"HTML", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t)
			s.SetFormats(c.json, c.html)
			s.AddWheels(
				Wheel{Name: "top-level", Version: "1.0", Requires: []string{"needed>=1", `extra-one; extra == "more"`}, Extras: []string{"more"}},
				Wheel{Name: "extra-one", Version: "3.1"},
			)
			s.Add(Project{Name: "needed", Files: []File{
				Wheel{Name: "needed", Version: "0.9"}.File(),
				Wheel{Name: "needed", Version: "1.0"}.File(),
				func() File {
					f := Wheel{Name: "needed", Version: "2.0"}.File()
					f.Yanked, f.YankedReason = true, "broken"
					return f
				}(),
				Wheel{Name: "needed", Version: "3.0", RequiresPython: "<3"}.File(),
				Sdist{Name: "needed", Version: "4.0"}.File(),
			}})
			dir := t.TempDir()
			out, err := pip.Run(t, nil, "download", "--index-url", s.URL(), "--only-binary", ":all:", "--dest", dir, "top-level[more]")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var got []string
			files, _ := filepath.Glob(dir + "/*")
			for _, file := range files {
				got = append(got, filepath.Base(file))
			}
			want := []string{"extra_one-3.1-py3-none-any.whl", "needed-1.0-py3-none-any.whl", "top_level-1.0-py3-none-any.whl"} // sorted
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q\n%s", got, want, out)
			}
			if n := s.WheelDownloads(); n < len(want) { // pip 23.0 fetches each twice
				t.Errorf("%d wheels were downloaded, want %d: %q", n, len(want), s.Requests())
			}
		})
	}

	for _, format := range []string{"JSON", "HTML"} {
		t.Run("a dry run needs metadata only, "+format, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t)
			s.SetFormats(format == "JSON", format == "HTML")
			s.AddWheels(Wheel{Name: "app", Version: "1.0", Requires: []string{"lib"}}, Wheel{Name: "lib", Version: "2.0"})
			report := filepath.Join(t.TempDir(), "report.json")
			out, err := pip.Run(t, nil, "install", "--dry-run", "--ignore-installed", "--report", report, "--index-url", s.URL(), "app")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			text, err := os.ReadFile(report)
			if err != nil {
				t.Fatal(err)
			}
			var parsed struct {
				Install []struct {
					DownloadInfo struct{ URL string } `json:"download_info"`
				}
			}
			if err := json.Unmarshal(text, &parsed); err != nil || len(parsed.Install) != 2 || parsed.Install[0].DownloadInfo.URL != s.FileURL("app-1.0-py3-none-any.whl") {
				t.Errorf("got %+v, %v", parsed, err)
			}
			if !slices.Contains(s.Requests(), "GET /files/app-1.0-py3-none-any.whl.metadata") {
				t.Skipf("this pip does not use metadata beside files of %s pages (PEP 658): use pip 23.1 or later", format)
			}
		})
	}

	t.Run("a hash that is wrong", func(t *testing.T) {
		t.Parallel()
		s := newTestServer(t)
		f := Wheel{Name: "app", Version: "1.0"}.File()
		f.HashWrong = true
		s.Add(Project{Name: "app", Files: []File{f}})
		out, err := pip.Run(t, nil, "download", "--index-url", s.URL(), "--dest", t.TempDir(), "app")
		if err == nil || !strings.Contains(out, "HASH") {
			t.Errorf("got %v\n%s", err, out)
		}
	})

	t.Run("an installed wheel imports", func(t *testing.T) {
		t.Parallel()
		s := newTestServer(t)
		s.AddWheels(Wheel{Name: "one-module", Version: "1.5", Padding: 1000})
		dir := t.TempDir()
		out, err := pip.Run(t, nil, "install", "--index-url", s.URL(), "--target", dir, "one-module")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if text, err := os.ReadFile(dir + "/one_module.py"); err != nil || string(text) != "__version__ = \"1.5\"\n" {
			t.Errorf("got %q, %v", text, err)
		}
		if info, err := os.Stat(dir + "/one_module_1.5_padding.bin"); err != nil || info.Size() != 1000 {
			t.Errorf("got %v, %v", info, err)
		}
	})

	t.Run("HTTPS and an account", func(t *testing.T) {
		t.Parallel()
		s := NewTLS()
		t.Cleanup(s.Close)
		s.SetAccount("me", "p@ss")
		s.AddWheels(Wheel{Name: "app", Version: "1.0"})
		cert := filepath.Join(t.TempDir(), "cert.pem")
		if err := os.WriteFile(cert, s.CertPEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		url := strings.Replace(s.URL(), "https://", "https://me:p%40ss@", 1)
		out, err := pip.Run(t, []string{"PIP_CERT=" + cert}, "download", "--index-url", url, "--dest", t.TempDir(), "app")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	f := Wheel{Name: "Some_Thing", Version: "1", RequiresPython: ">=3.9"}.File()
	f.YankedReason = `a "reason"`
	s.Add(Project{Name: "Some_Thing", Files: []File{f}})
	for _, c := range []struct {
		name, path, accept string
		status             int
		contentType        string
		holds              []string
	}{
		{"JSON", "/simple/some-thing/", jsonPage, 200, jsonPage, []string{`"requires-python":"\u003e=3.9"`, `"yanked":"a \"reason\""`, `"core-metadata":{"sha256":"`, `"size":`}},
		{"HTML", "/simple/some-thing/", "text/html", 200, "text/html; charset=utf-8", []string{`data-requires-python="&gt;=3.9"`, `data-yanked="a &#34;reason&#34;"`, `data-dist-info-metadata="sha256=`, `.whl#sha256=`}},
		{"HTML of version 1", "/simple/some-thing/", htmlPage, 200, htmlPage, nil},
		{"list", "/simple/", jsonPage, 200, jsonPage, []string{`{"name":"some-thing"}`}},
		{"list in HTML", "/simple/", "", 200, "text/html; charset=utf-8", []string{`<a href="/simple/some-thing/">`}},
		{"another spelling", "/simple/Some_Thing/", jsonPage, 301, "", nil},
		{"no such project", "/simple/other/", jsonPage, 404, "", nil},
		{"no such file", "/files/other.whl", "", 404, "", nil},
		{"metadata", "/files/Some_Thing-1-py3-none-any.whl.metadata", "", 200, "", []string{"Name: Some_Thing\nVersion: 1\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, header, body, err := get(t, strings.TrimSuffix(s.URL(), "/simple/")+c.path, c.accept)
			if err != nil || status != c.status || c.contentType != "" && header.Get("Content-Type") != c.contentType {
				t.Errorf("got %d, %q, %v", status, header.Get("Content-Type"), err)
			}
			for _, part := range c.holds {
				if !strings.Contains(body, part) {
					t.Errorf("%s has no %s", body, part)
				}
			}
		})
	}
}

func TestFilesFailAsTold(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	const size = 1 << 20
	s.Add(Project{Name: "x", Files: []File{
		{Name: "truncated.whl", Stream: size, Truncate: 10},
		{Name: "once.whl", Content: []byte("content"), Status: 500, Times: 1},
		{Name: "chunked.whl", Content: []byte("content"), Chunked: true},
		{Name: "redirected.whl", RedirectTo: "http://192.0.2.1/x.whl"},
		{Name: "stream.whl", Stream: size},
	}})
	if status, _, body, err := get(t, s.FileURL("truncated.whl"), ""); status != 200 || len(body) != size-10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated: got %d, %d bytes, %v", status, len(body), err)
	}
	if status, _, _, _ := get(t, s.FileURL("once.whl"), ""); status != 500 {
		t.Errorf("once: got %d", status)
	}
	if status, _, body, err := get(t, s.FileURL("once.whl"), ""); status != 200 || body != "content" || err != nil {
		t.Errorf("once, later: got %d, %q, %v", status, body, err)
	}
	if _, header, body, err := get(t, s.FileURL("chunked.whl"), ""); header.Get("Content-Length") != "" || body != "content" || err != nil {
		t.Errorf("chunked: got %q, %q, %v", header, body, err)
	}
	if status, header, _, _ := get(t, s.FileURL("redirected.whl"), ""); status != 302 || header.Get("Location") != "http://192.0.2.1/x.whl" {
		t.Errorf("redirected: got %d, %q", status, header)
	}
	if _, header, body, err := get(t, s.FileURL("stream.whl"), ""); header.Get("Content-Length") != "1048576" || strings.Trim(body, "\x00") != "" || err != nil {
		t.Errorf("stream: got %q, %v", header, err)
	}
	if n := s.WheelDownloads(); n != 6 {
		t.Errorf("%d wheels were downloaded", n)
	}
	s.SetDown(true)
	if _, _, _, err := get(t, s.URL(), ""); err == nil {
		t.Error("a server that is down answers")
	}
}

// A test that waits for a slow answer must not outlive its server.
func TestCloseEndsDelays(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	s.SetPages(time.Hour, 0)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _, _, _ = get(t, s.URL(), "")
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(s.Requests()) == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	s.Close()
	select {
	case <-answered:
	case <-ctx.Done():
		t.Error("the answer did not end")
	}
}

func TestForgedWheels(t *testing.T) {
	t.Parallel()
	name, content := Wheel{
		Name: "bad", Version: "1", Tag: "cp39-cp39-linux_x86_64", NoWheelFile: true, MetadataName: "other",
		Raw: []RawEntry{
			{Name: "../up.py", Content: "x"},
			{Name: "/abs.py", Content: "x", InRecord: true},
			{Name: "link", Content: "/etc/passwd", Mode: fs.ModeSymlink | 0o777},
			{Name: "bomb", Zeros: 1 << 24},
		},
	}.Build()
	if name != "bad-1-cp39-cp39-linux_x86_64.whl" || len(content) > 1<<16 {
		t.Errorf("got %s of %d bytes", name, len(content))
	}
	archive, _ := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if archive == nil {
		t.Fatal("it cannot be read")
	}
	var names []string
	for _, f := range archive.File {
		names = append(names, f.Name)
		if f.Name == "link" && f.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("link has mode %s", f.Mode())
		}
	}
	if want := []string{"bad.py", "bad-1.dist-info/METADATA", "../up.py", "/abs.py", "link", "bomb", "bad-1.dist-info/RECORD"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	if text := string(wheelMetadata(content)); !strings.Contains(text, "Name: other\n") {
		t.Errorf("got %q", text)
	}
	_, again := Wheel{Name: "a", Version: "1"}.Build()
	if _, first := (Wheel{Name: "a", Version: "1"}).Build(); !bytes.Equal(first, again) {
		t.Error("the same wheel has other bytes each time")
	}
}
