package packages

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// parallelDownloads is how many files are downloaded at the same time.
	parallelDownloads = 4
	// downloadRetries is how often the download of one file is tried again.
	downloadRetries = 2
	// progressPeriod is the least time between two reports of progress.
	progressPeriod = 200 * time.Millisecond
	// sizesTimeout bounds one call of Sizes.
	sizesTimeout = 5 * time.Second
)

// Wanted is a file to download, as the resolver has chosen it.
type Wanted struct {
	// Name and Version of the package, for messages.
	Name, Version string
	// URL of a wheel: http, https, or file below a directory of find-links.
	URL string
	// SHA256 in hexadecimal. With "" the content is not checked, and plain HTTP is used only with this machine and with
	// hosts of trusted-host.
	SHA256 string
}

// DownloadOptions bound a download. The zero value works.
type DownloadOptions struct {
	// MaxBytes bounds all files together. 0 is no bound.
	MaxBytes int64
	// Hosts lists HOST:PORT from which files may come, beside those of the Index, redirects included. See Page.Hosts.
	Hosts []string
	// Progress, when not nil, is called with the bytes that have arrived and the bytes of all files, -1 while that is unknown.
	// It is called at most a few times a second, and once at the end of a download that succeeds. Calls do not overlap, and
	// must not block.
	Progress func(done, total int64)
}

// wheelFileName matches the names that a file may have on disk. The names of wheels need no other characters (PEP 427).
var wheelFileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}\.whl$`)

// downloads is one call of Download.
type downloads struct {
	x     *Index
	o     DownloadOptions
	into  string
	hosts []string
	files []*download

	mu       sync.Mutex
	reported time.Time
}

// download is one file of downloads, whose mu guards here and size.
type download struct {
	Wanted
	url  *url.URL
	file string // the name of the file
	here int64  // bytes that have arrived
	size int64  // bytes; -1 when unknown
}

// Download fetches wheels into a directory and returns their paths, in the order of files. A file gets its name there only when
// it is complete and its hash is right. After an error, files that were complete stay in the directory, for the caller to
// remove.
//
// The first failure ends the other downloads and is returned: a *HostError, *TooLargeError, *HashError, *NotFoundError,
// *IndexError, the context's error, one of the file system, or one that says what is wrong with files.
func (x *Index) Download(ctx context.Context, into string, files []Wanted, o DownloadOptions) ([]string, error) {
	d := &downloads{x: x, o: o, into: into, hosts: x.allowedHosts(o.Hosts)}
	names := map[string]bool{}
	sizes := map[string]int64{}
	for _, wanted := range files {
		f, err := d.newDownload(wanted)
		if err != nil {
			return nil, err
		}
		if names[f.file] {
			return nil, fmt.Errorf("two files to download are called %s: choose one of them", f.file)
		}
		names[f.file] = true
		d.files = append(d.files, f)
		sizes[f.url.String()] = -1
	}
	x.cache.sizes(sizes)
	for _, f := range d.files {
		if err := d.announce(f, sizes[f.url.String()]); err != nil { // refuses before the first request
			return nil, err
		}
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	paths := make([]string, len(d.files))
	slots := make(chan struct{}, parallelDownloads)
	var wait sync.WaitGroup
	for i, f := range d.files {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			path, err := d.fetch(ctx, f)
			if err != nil {
				cancel(err) // the context keeps the first error, not those of the downloads that it then cancels
			}
			paths[i] = path
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d.report(true)
	return paths, nil
}

// allowedHosts returns the hosts of the index and more, which are HOST or HOST:PORT.
func (x *Index) allowedHosts(more []string) []string {
	hosts := x.Hosts()
	for _, host := range more {
		if normal := normalHost(host); normal != "" && !slices.Contains(hosts, normal) {
			hosts = append(hosts, normal)
		}
	}
	return hosts
}

// newDownload prepares the download of a file. It is an error when the file is no wheel, or may not be fetched from its URL.
func (d *downloads) newDownload(wanted Wanted) (*download, error) {
	u, err := url.Parse(wanted.URL)
	if err != nil {
		return nil, fmt.Errorf("the address of %s %s is no URL: let the operator check the index", wanted.Name, wanted.Version)
	}
	u.Fragment, u.RawFragment = "", ""
	f := &download{Wanted: wanted, url: u, file: baseName(u), size: -1}
	f.SHA256 = strings.ToLower(wanted.SHA256)
	if f.SHA256 != "" && normalSHA256(f.SHA256) == "" {
		return nil, fmt.Errorf("the SHA-256 of %s %s is %.80q: 64 hexadecimal digits are needed", wanted.Name, wanted.Version, wanted.SHA256)
	}
	if !wheelFileName.MatchString(f.file) {
		return nil, fmt.Errorf("%s %s comes as %.100q, which is no wheel: choose a version that has a wheel", wanted.Name, wanted.Version, f.file)
	}
	if u.Scheme == "file" {
		if u.Host != "" && u.Host != "localhost" || d.x.localDir(u.Path) == "" {
			return nil, fmt.Errorf("%s is a local file outside the directories of find-links: let the operator name its directory there", f.file)
		}
		return f, nil
	}
	return f, d.check(f)(u)
}

// check returns a check for request with the URLs from which a file may come.
func (d *downloads) check(f *download) func(*url.URL) error {
	return func(u *url.URL) error {
		if err := hostCheck(d.hosts)(u); err != nil {
			return err
		}
		if f.SHA256 == "" && u.Scheme == "http" && !d.x.plainAllowed(u) {
			return &IndexError{Host: shownHost(u.Host), Reason: "gives files by plain HTTP without a hash, which anybody between can change"}
		}
		return nil
	}
}

// announce notes the size of a file, unless that is -1, and returns a *TooLargeError when all files together exceed MaxBytes.
func (d *downloads) announce(f *download, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size >= 0 {
		f.size = size
	}
	return d.bounded(f)
}

// advance notes how many bytes of a file have arrived, reports progress, and returns a *TooLargeError when all files together
// exceed MaxBytes. It is called before the bytes are written.
func (d *downloads) advance(f *download, here int64) error {
	d.mu.Lock()
	f.here = here
	err := d.bounded(f)
	d.mu.Unlock()
	if err == nil {
		d.report(false)
	}
	return err
}

// bounded returns a *TooLargeError when all files together exceed MaxBytes. The caller must hold d.mu.
func (d *downloads) bounded(f *download) error {
	var total int64
	for _, f := range d.files {
		total += max(f.size, f.here)
	}
	if d.o.MaxBytes > 0 && total > d.o.MaxBytes {
		return &TooLargeError{Name: f.file, Bytes: total, MaxBytes: d.o.MaxBytes}
	}
	return nil
}

func (d *downloads) report(last bool) {
	if d.o.Progress == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if !last && now.Sub(d.reported) < progressPeriod {
		return
	}
	d.reported = now
	var done, total int64
	for _, f := range d.files {
		done += f.here
		if f.size < 0 || total < 0 {
			total = -1
		} else {
			total += max(f.size, f.here)
		}
	}
	if last {
		total = done
	}
	d.o.Progress(done, total)
}

// Sizes returns the size of each file in bytes, or -1 when it cannot be found within 5 s. A size on a page that Lookup has cached
// needs no request. hosts is as DownloadOptions.Hosts.
func (x *Index) Sizes(ctx context.Context, files []Wanted, hosts []string) []int64 {
	sizes := make([]int64, len(files))
	urls := make([]*url.URL, len(files))
	known := map[string]int64{}
	for i, f := range files {
		sizes[i] = -1
		if u, err := url.Parse(f.URL); err == nil {
			u.Fragment, u.RawFragment = "", ""
			urls[i] = u
			known[u.String()] = -1
		}
	}
	x.cache.sizes(known)
	check := hostCheck(x.allowedHosts(hosts))

	ctx, cancel := context.WithTimeout(ctx, sizesTimeout)
	defer cancel()
	slots := make(chan struct{}, 2*parallelDownloads)
	var wait sync.WaitGroup
	for i, u := range urls {
		if u == nil {
			continue
		}
		if sizes[i] = known[u.String()]; sizes[i] >= 0 {
			continue
		}
		if u.Scheme == "file" {
			if file, err := x.openLocal(u.Path); err == nil {
				if info, err := file.Stat(); err == nil {
					sizes[i] = info.Size()
				}
				_ = file.Close()
			}
			continue
		}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			response, err := x.request(ctx, http.MethodHead, u, identity(), check)
			if err != nil {
				return
			}
			if response.StatusCode == http.StatusOK {
				sizes[i] = response.ContentLength
			}
			_ = response.Body.Close()
		})
	}
	wait.Wait()
	return sizes
}

// identity returns headers that keep http.Transport from asking for a compressed answer, whose length would not be the file's.
func identity() http.Header { return http.Header{"Accept-Encoding": {"identity"}} }
