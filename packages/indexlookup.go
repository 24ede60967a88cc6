package packages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// maxPage bounds a page, in bytes; the largest pages of PyPI are some 20 MiB.
	maxPage = 64 << 20
	// acceptPage is the Accept header that pip sends. Without the weights some indexes answer with HTML instead of JSON.
	acceptPage = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
	// pageLife is how long a page is served from the cache.
	pageLife = time.Minute
	// maxCachedPages and maxCachedFiles bound the cache; a File takes some 300 bytes.
	maxCachedPages, maxCachedFiles = 64, 50_000
)

var validProject = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,198}[A-Za-z0-9])?$`)

// Lookup asks every index for a project, and looks into the local directories. Pages are cached for a minute.
//
// When an index fails, the error is an *IndexError, or a *HostError when the index redirects to a host that is not in Hosts.
// The page then has the files of the other indexes, with which pip would go on, too. When several fail, the error is that of
// the first one. The error is of another type for a name that no project can have, and when ctx is cancelled.
func (x *Index) Lookup(ctx context.Context, name string) (Page, error) {
	if !validProject.MatchString(name) {
		return Page{}, fmt.Errorf("%.100q is no name of a package: use letters, digits, ., _ and -", name)
	}
	project := Canonical(name)
	urls := make([]*url.URL, 0, len(x.indexes)+len(x.pages))
	for _, u := range x.indexes {
		urls = append(urls, u.JoinPath(project+"/"))
	}
	urls = append(urls, x.pages...)

	type answer struct {
		files []File
		found bool
		err   error
	}
	answers := make([]answer, len(urls))
	var wait sync.WaitGroup
	for i, u := range urls {
		wait.Go(func() { answers[i].files, answers[i].found, answers[i].err = x.page(ctx, u) })
	}
	wait.Wait()

	var page Page
	var failed error
	add := func(files []File) {
		for _, file := range files {
			if file.projectFile(project) {
				page.Files = append(page.Files, file)
			}
		}
	}
	for i, answer := range answers {
		if answer.err != nil {
			failed = firstError(failed, answer.err)
			continue
		}
		page.Found = page.Found || answer.found && i < len(x.indexes)
		add(answer.files)
	}
	add(x.files)
	for _, dir := range x.dirs {
		add(localFiles(dir))
	}
	page.Found = page.Found || len(page.Files) > 0
	return page, failed
}

func firstError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// page returns the files of the page at u, from the cache when it is there. found is false when the index has no such page.
func (x *Index) page(ctx context.Context, u *url.URL) (files []File, found bool, err error) {
	if files, found = x.cache.get(u.String()); found {
		return files, true, nil
	}
	response, err := x.request(ctx, http.MethodGet, u, http.Header{"Accept": {acceptPage}}, func(u *url.URL) error {
		if err := hostCheck(x.hosts)(u); err != nil {
			return err
		}
		if u.Scheme == "http" && !x.plainAllowed(u) {
			return &IndexError{Host: shownHost(u.Host), Reason: "redirects to plain HTTP, where anybody between can change a page"}
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, false, nil
	default:
		return nil, false, statusError(response)
	}
	last := response.Request.URL // after redirects; references in the page are relative to it
	body := &io.LimitedReader{R: response.Body, N: x.maxPage + 1}
	files, known, err := parsePage(last, response.Header.Get("Content-Type"), body)
	switch {
	case body.N <= 0:
		return nil, false, &IndexError{Host: shownHost(last.Host), Reason: "answers with a page of more than " + humanize.IBytes(uint64(x.maxPage))}
	case errors.Is(err, context.Canceled):
		return nil, false, err
	case err != nil:
		if index := new(IndexError); errors.As(err, &index) {
			return nil, false, index
		}
		return nil, false, &IndexError{Host: shownHost(last.Host), Reason: "answers with a page that cannot be read", Err: err}
	case !known:
		return nil, false, &IndexError{Host: shownHost(last.Host), Reason: fmt.Sprintf("answers with %.60q, which is no page of an index", response.Header.Get("Content-Type"))}
	}
	x.cache.put(u.String(), files)
	return files, true, nil
}

// localFiles returns the files of a directory, none when it cannot be read any more, as pip does.
func localFiles(dir string) []File {
	entries, _ := os.ReadDir(dir)
	var files []File
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		info, err := os.Stat(path) // follows symbolic links
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		files = append(files, File{Name: entry.Name(), URL: fileURL(path), Size: info.Size()})
	}
	return files
}

// pageCache keeps pages for pageLife, so that a second Lookup, Sizes and Download need not ask for them again. The zero value
// is an empty cache. It is safe for concurrent use.
type pageCache struct {
	mu    sync.Mutex
	pages map[string]cachedPage
	files int // of all pages
}

type cachedPage struct {
	files []File // never changed
	until time.Time
}

func (c *pageCache) get(url string) ([]File, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	page, ok := c.pages[url]
	if !ok || time.Now().After(page.until) {
		return nil, false
	}
	return page.files, true
}

func (c *pageCache) put(url string, files []File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(url)
	if len(files) > maxCachedFiles {
		return
	}
	for len(c.pages) >= maxCachedPages || c.files+len(files) > maxCachedFiles {
		oldest := ""
		for url, page := range c.pages {
			if oldest == "" || page.until.Before(c.pages[oldest].until) {
				oldest = url
			}
		}
		c.remove(oldest)
	}
	if c.pages == nil {
		c.pages = map[string]cachedPage{}
	}
	c.pages[url] = cachedPage{files, time.Now().Add(pageLife)}
	c.files += len(files)
}

func (c *pageCache) remove(url string) {
	if page, ok := c.pages[url]; ok {
		delete(c.pages, url)
		c.files -= len(page.files)
	}
}

// sizes sets the size of each file in known, whose keys are URLs, for which a cached page has one. Expired pages count, too.
func (c *pageCache) sizes(known map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, page := range c.pages {
		for i := range page.files {
			if _, wanted := known[page.files[i].URL]; wanted && page.files[i].Size >= 0 {
				known[page.files[i].URL] = page.files[i].Size
			}
		}
	}
}
