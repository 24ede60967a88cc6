package packages

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Index gives access to the package indexes and local directories that pip's configuration names. All methods may be called
// concurrently.
type Index struct {
	settings  PipConfig
	userAgent string
	log       *slog.Logger
	indexes   []*url.URL // index-url and extra-index-url, which have a page for each project
	pages     []*url.URL // pages in find-links, which list files of any project
	files     []File     // single files in find-links; Version is not set yet
	dirs      []string   // directories in find-links
	hosts     []string   // HOST:PORT of the above and ExtraHosts, from which files may be fetched
	accounts  []account
	trusted   []string // trusted-host, as normalHost; without a port it stands for all ports
	transport *transport
	cache     pageCache
	maxPage   int64         // bytes
	backoff   time.Duration // before the first retry of a download; doubled for each further one
}

// IndexOptions are settings of an Index that pip's configuration does not have. The zero value works.
type IndexOptions struct {
	// ExtraHosts lists HOST or HOST:PORT from which files may be fetched, beside the hosts of the indexes. The default port
	// is 443.
	ExtraHosts []string
	// UserAgent is sent to indexes. Default: "caddy-python-sandbox".
	UserAgent string
	// Logger receives warnings about settings that are ignored. Default: slog.Default().
	Logger *slog.Logger
}

// account is the user and password of an index URL. They are sent only to the scheme, host and port of that URL.
type account struct {
	scheme, host, path string
	user, password     string
}

// NewIndex returns an Index, or an error when a setting is wrong. It makes no request. The caller must Close the Index.
func NewIndex(c PipConfig, o IndexOptions) (*Index, error) {
	x := &Index{settings: c, userAgent: cmp.Or(o.UserAgent, "caddy-python-sandbox"), log: o.Logger, maxPage: maxPage, backoff: 200 * time.Millisecond}
	if x.log == nil {
		x.log = slog.Default()
	}
	for _, host := range c.TrustedHosts {
		normal := normalHost(host)
		if normal == "" {
			return nil, fmt.Errorf("trusted-host of pip's configuration is %q: use a host's name, or HOST:PORT", redactURL(host))
		}
		if !hasPort(host) {
			normal = strings.TrimSuffix(normal, ":443")
		}
		x.trusted = append(x.trusted, normal)
	}
	if !c.NoIndex {
		first := cmp.Or(c.IndexURL, c.DefaultIndexURL)
		if first == "" {
			return nil, fmt.Errorf("pip's configuration names no index: set index-url, or no-index with find-links")
		}
		for i, raw := range append([]string{first}, c.ExtraIndexURLs...) {
			word := "index-url"
			if i > 0 {
				word = "extra-index-url"
			}
			u, err := x.addRemote(word, raw)
			if err != nil {
				return nil, err
			}
			x.indexes = append(x.indexes, u)
		}
	}
	for _, place := range c.FindLinks {
		if err := x.addFindLinks(place); err != nil {
			return nil, err
		}
	}
	for _, host := range o.ExtraHosts {
		normal := normalHost(host)
		if normal == "" {
			return nil, fmt.Errorf("packages hosts names %q: use a host's name, or HOST:PORT", redactURL(host))
		}
		x.addHost(normal)
	}
	var err error
	x.transport, err = newTransport(x)
	return x, err
}

// Close closes idle connections.
func (x *Index) Close() { x.transport.CloseIdleConnections() }

// Hosts returns host:port of every index and extra host. The slice is the caller's.
func (x *Index) Hosts() []string { return slices.Clone(x.hosts) }

// LocalDirs returns the directories that find-links names and that exist, absolute. The slice is the caller's.
func (x *Index) LocalDirs() []string { return slices.Clone(x.dirs) }

func (x *Index) addHost(host string) {
	if !slices.Contains(x.hosts, host) {
		x.hosts = append(x.hosts, host)
	}
}

// addRemote parses a URL of the setting word and allows its host. User and password are moved from the URL to x.accounts.
func (x *Index) addRemote(word, raw string) (*url.URL, error) {
	u, err := parseIndexURL(word, raw)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" && !x.plainAllowed(u) {
		// pip would ignore the URL with a warning, and say later that there is no such package.
		return nil, fmt.Errorf("%s of pip's configuration is %q, which anybody between can change: use https, or name the host in trusted-host",
			word, redactURL(raw))
	}
	if u.User != nil {
		password, _ := u.User.Password()
		x.accounts = append(x.accounts, account{u.Scheme, hostOf(u), u.Path, u.User.Username(), password})
		u.User = nil
	}
	x.addHost(hostOf(u))
	return u, nil
}

// addFindLinks adds one value of find-links: a directory, a page or a file. Like pip it ignores a directory that does not exist.
func (x *Index) addFindLinks(place string) error {
	path := ""
	if strings.HasPrefix(place, "file:") {
		u, err := url.Parse(place)
		if err != nil || u.Host != "" && u.Host != "localhost" || u.Path == "" {
			return fmt.Errorf("find-links of pip's configuration is %q: use a path, or file:///PATH", redactURL(place))
		}
		path = u.Path
	} else if strings.Contains(place, "://") {
		u, err := x.addRemote("find-links", place)
		if err != nil {
			return err
		}
		if _, archive := archiveStem(u.Path); archive {
			x.files = append(x.files, File{Name: baseName(u), URL: u.String(), Size: -1})
		} else {
			x.pages = append(x.pages, u)
		}
		return nil
	}
	path = absolutePath(cmp.Or(path, place))
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		x.log.Warn("find-links of pip's configuration is ignored, since it is no directory that can be read", "find_links", redactURL(place))
		return nil //nolint:nilerr // pip ignores it, too
	}
	if !slices.Contains(x.dirs, path) {
		x.dirs = append(x.dirs, path)
	}
	return nil
}

// hasPort says whether host, for which normalHost does not return "", names a port.
func hasPort(host string) bool {
	u, err := url.Parse("//" + host)
	return err == nil && u.Port() != ""
}

// isTrusted says whether trusted-host names the host of a URL.
func (x *Index) isTrusted(u *url.URL) bool {
	host := hostOf(u)
	name := host[:max(strings.LastIndexByte(host, ':'), 0)]
	return host != "" && (slices.Contains(x.trusted, host) || slices.Contains(x.trusted, name))
}

// plainAllowed says whether plain HTTP may be used for a URL: for this machine and for hosts of trusted-host.
func (x *Index) plainAllowed(u *url.URL) bool { return isLoopback(u) || x.isTrusted(u) }

// authorize sets Basic authentication on a request whose scheme, host and port are those of a URL with a user and password.
func (x *Index) authorize(r *http.Request) {
	var best *account
	for i := range x.accounts {
		a := &x.accounts[i]
		if a.scheme != r.URL.Scheme || a.host != hostOf(r.URL) {
			continue
		}
		// Several indexes on one host may have an account each: the longest path that the request's path begins with decides.
		// When there is none, the first account is used, since an index often keeps its files elsewhere on its host.
		within := strings.HasPrefix(r.URL.Path, a.path)
		if best == nil || within && (len(a.path) > len(best.path) || !strings.HasPrefix(r.URL.Path, best.path)) {
			best = a
		}
	}
	if best != nil && r.Header.Get("Authorization") == "" {
		r.SetBasicAuth(best.user, best.password)
	}
}
