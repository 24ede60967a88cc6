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
	// parallelDownloads is how many files come at once.
	parallelDownloads = 4
	// downloadRetries is how often one file is tried again.
	downloadRetries = 2
	// progressPeriod is the least time between two reports of progress.
	progressPeriod = 200 * time.Millisecond
	// sizesTimeout is how long Sizes waits in all.
	sizesTimeout = 5 * time.Second
)

// Wanted is a file that was chosen.
type Wanted struct {
	// Name and Version of the package, for messages.
	Name, Version string
	// URL of a wheel: http, https, or file below a directory of find-links.
	URL string
	// SHA256 in hexadecimal. "" takes what comes, but by plain HTTP only from this machine and from trusted hosts.
	SHA256 string
}

// DownloadOptions bound a download. The zero value works.
type DownloadOptions struct {
	// MaxBytes bounds all files together. 0 is no bound.
	MaxBytes int64
	// Hosts lists HOST:PORT that files and redirects may lead to, beside those of the Index. See Page.Hosts.
	Hosts []string
	// Progress, when not nil, is told the bytes that are here, and the bytes of all files, or -1 while those are unknown.
	// It is called a few times a second at most, and at the end, by one goroutine at a time, and must not block.
	Progress func(done, total int64)
}

// wheelFileName is what a file may be called on disk: PEP 427 needs no other characters.
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

// download is one file of it. The numbers are guarded by downloads.mu.
type download struct {
	Wanted
	url  *url.URL
	file string // its name
	here int64  // bytes
	size int64  // -1 is unknown
}

// Download fetches wheels into a directory and returns their paths, in the order of files. A file appears under its name
// when it is complete and its hash is right. After an error, files that were complete are left there; the directory is
// the caller's.
//
// Errors are *HostError, *TooLargeError, *HashError, *NotFoundError, *IndexError, the context's own, or the file system's.
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
		if err := d.announce(f, sizes[f.url.String()]); err != nil { // before anything is asked for
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
				cancel(err) // the first one is kept; those that follow from it are not
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

// allowedHosts are those of the index and more, which are HOST or HOST:PORT.
func (x *Index) allowedHosts(more []string) []string {
	hosts := x.Hosts()
	for _, host := range more {
		if normal := normalHost(host); normal != "" && !slices.Contains(hosts, normal) {
			hosts = append(hosts, normal)
		}
	}
	return hosts
}

// newDownload refuses a file that may not be fetched, or that would not be a wheel.
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

// check says where a file may come from.
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

// announce takes the size of a file in, when that is not -1, and refuses it when all would become too large.
func (d *downloads) announce(f *download, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size >= 0 {
		f.size = size
	}
	return d.bounded(f)
}

// advance says that a file has so many bytes here, or, when they are not written yet, is about to.
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

// bounded needs d.mu.
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

// Sizes returns the size of each file in bytes, or -1 where it cannot be told within some seconds. Pages that Lookup has
// seen tell it without a request. hosts are as in DownloadOptions.
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

// identity keeps the transport from asking for a compressed answer, whose length would not be the file's.
func identity() http.Header { return http.Header{"Accept-Encoding": {"identity"}} }
