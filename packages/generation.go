package packages

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Generation is an immutable set of packages. It stays on disk for as long as a process retains it. Its methods may be
// called concurrently; its fields must not be changed.
type Generation struct {
	// Number grows from one generation of a store to the next; 0 is no generation.
	Number int
	// Site is the directory for sys.path, absolute; "" for no generation. Do not pass it to Python's site.addsitedir, which
	// would run .pth files, although unpacking leaves those out.
	Site string
	// Packages are sorted by name.
	Packages []Package

	store *Store
	refs  int      // guarded by store.mu
	hold  *os.File // the manifest; its shared flock tells other processes that this one uses the generation
}

// manifest is a generation's manifest.json.
type manifest struct {
	Number   int       `json:"number"`
	Packages []Package `json:"packages"`
	Created  time.Time `json:"created"`
}

// errBroken is wrapped by errors after which a generation can never be used, such as a damaged manifest.
var errBroken = errors.New("it is broken")

// Find returns the package of this name, which need not be canonical (PEP 503).
func (g *Generation) Find(name string) (Package, bool) {
	at, found := slices.BinarySearchFunc(g.Packages, canonicalWheelName(name), func(p Package, name string) int {
		return strings.Compare(p.Name, name)
	})
	if !found {
		return Package{}, false
	}
	return g.Packages[at], true
}

// Bytes is the size of the packages' files together. On disk the files are shared with the store's entries and with other
// generations.
func (g *Generation) Bytes() int64 {
	var sum int64
	for _, p := range g.Packages {
		sum += p.Bytes
	}
	return sum
}

// Retain adds a reference, which a Release must give back, and returns the generation. The caller must hold a reference
// already.
func (g *Generation) Retain() *Generation {
	g.store.mu.Lock()
	defer g.store.mu.Unlock()
	return g.retainLocked()
}

func (g *Generation) retainLocked() *Generation {
	if g.Number == 0 {
		return g
	}
	if g.refs <= 0 {
		panic("bug: a generation of packages is retained after its last release")
	}
	g.refs++
	return g
}

// Release gives a reference back. When that was the last one of this process, the generation is not current and no other
// process uses it, Release removes the generation, and the store's entries that no other generation names. When an install
// is under way, the entries are left to its end.
func (g *Generation) Release() {
	if g.Number == 0 {
		return
	}
	s := g.store
	s.mu.Lock()
	g.refs--
	left := g.refs
	if left == 0 {
		delete(s.generations, g.Number)
	}
	s.mu.Unlock()
	if left < 0 {
		panic("bug: a generation of packages is released more often than it was retained")
	}
	if left > 0 {
		return
	}
	removed := s.removeUnused(g.Number, g.hold)
	unlock(g.hold)
	if removed {
		s.sweepEntriesUnlessInstalling()
	}
}

// openGeneration returns a generation with one more reference. The error is errBroken when the generation can never be
// used, and errLocked when another process is removing it, or holds the lock while it checks that it may be removed.
func (s *Store) openGeneration(number int) (*Generation, error) {
	dir := s.path("generations", strconv.Itoa(number))
	g := &Generation{Number: number, Site: dir + "/site", store: s, refs: 1}
	var err error
	if g.hold, err = os.Open(dir + "/manifest.json"); err != nil {
		return nil, brokenWhenGone(err)
	}
	if err := g.read(dir); err != nil {
		unlock(g.hold)
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.generations[number]; known != nil {
		unlock(g.hold)
		return known.retainLocked(), nil
	}
	s.generations[number] = g
	s.highest = max(s.highest, number)
	return g, nil
}

// read takes the shared lock of the manifest, which keeps other processes from removing the generation, and only then reads
// it. A manifest that was removed before the lock was taken is errBroken.
func (g *Generation) read(dir string) error {
	if err := flock(g.hold, unix.LOCK_SH); err != nil {
		return err
	}
	if !sameFile(g.hold, dir+"/manifest.json") {
		return fmt.Errorf("%w: it was removed", errBroken)
	}
	var err error
	if g.Packages, err = parseManifest(g.hold, g.Number); err != nil {
		return err
	}
	stat, err := os.Lstat(g.Site)
	if err != nil {
		return brokenWhenGone(err)
	}
	if !stat.IsDir() {
		return fmt.Errorf("%w: its site is not a directory", errBroken)
	}
	return nil
}

// readManifest returns the packages of a generation without locking it, so that it may be removed at any time.
func (s *Store) readManifest(number int) ([]Package, error) {
	file, err := os.Open(s.path("generations", strconv.Itoa(number), "manifest.json"))
	if err != nil {
		return nil, brokenWhenGone(err)
	}
	defer func() { _ = file.Close() }()
	return parseManifest(file, number)
}

func parseManifest(file *os.File, number int) ([]Package, error) {
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%w: its manifest.json cannot be read (%w)", errBroken, err)
	}
	if m.Number != number {
		return nil, fmt.Errorf("%w: its manifest.json is that of %d", errBroken, m.Number)
	}
	for _, p := range m.Packages {
		if _, err := entryName(p); err != nil {
			return nil, fmt.Errorf("%w: %w", errBroken, err)
		}
	}
	return sortedByName(m.Packages), nil
}

// brokenWhenGone wraps errBroken around an error that says that a file does not exist. Any other error, such as a lack of
// descriptors or of a permission, may pass, so that nothing must be removed because of it.
func brokenWhenGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return err
}

func sortedByName(set []Package) []Package {
	set = slices.Clone(set)
	slices.SortFunc(set, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return set
}
