package packages

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Store keeps unpacked wheels and generations in one directory, which several processes may share. All methods may be
// called concurrently.
//
//	lock                               flock(2), exclusive during an install; its content is the highest number given
//	store/<name>-<version>-<hash>/     an entry: an unpacked and compiled wheel (site/) and its Package (package.json)
//	generations/<number>/site/         a set, as hard links into the entries
//	generations/<number>/manifest.json its Packages; each process that uses it holds a shared flock on this file
//	current                            a link to a generation; replaced by rename(2)
//	staging/<random>/                  work in progress; its owner holds a flock on the file lock in it
//
// What is in store/ and generations/ is whole and never changes: it comes and goes by one rename each. So a process that is
// killed leaves the old set or the new one, and beside it only what the next Open, or the end of the next install, removes.
// Everything but staging is readable for all, whatever the umask, since templates read it under other ids.
type Store struct {
	dir  string
	log  *slog.Logger
	none *Generation // stands for no generation
	refs int         // of Open; guarded by stores.mu

	// sweeping is held by a sweep until it has given back the lock, so that the next one can wait for that. It comes
	// before mu.
	sweeping sync.Mutex

	mu          sync.Mutex // guards what follows; nothing slower than one rename is done under it
	current     *Generation
	generations map[int]*Generation // those with references
	highest     int                 // the highest number given, as far as this process knows
	installing  bool
	closed      bool            // and current holds nothing any more
	waiting     []chan struct{} // for their turn to install, in order
	watchers    []*watching
}

// stores are those that are open in this process, by their directory with all links resolved.
var stores = struct {
	mu   sync.Mutex
	open map[string]*Store
}{open: map[string]*Store{}}

// Open returns the store in dir, which it makes when it is not there, with the directories above. Every Open of one
// directory in this process returns the same Store, which logs to the first one's log (nil discards), and needs a Close.
//
// The first Open removes what a crash has left, unless another process is installing just now, which will do that at its
// end. A current generation that is broken (by a damaged disk, or by hand) is replaced by the newest whole one before it, or
// by none, and logged. That a file cannot be read for lack of a permission or of descriptors is an error instead.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the package store: %w", err)
	}
	if err := mkdirAllShared(dir); err != nil {
		return nil, fmt.Errorf("opening the package store: %w; choose a directory that Caddy may write to", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("opening the package store: %w", err)
	}
	stores.mu.Lock()
	defer stores.mu.Unlock()
	if s := stores.open[dir]; s != nil {
		s.refs++
		return s, nil
	}
	s := &Store{dir: dir, log: log, refs: 1, generations: map[int]*Generation{}}
	s.none = &Generation{store: s}
	if err := s.recover(); err != nil {
		return nil, fmt.Errorf("opening the package store %s: %w", dir, err)
	}
	stores.open[dir] = s
	return s, nil
}

// recover brings the directory into order and finds what is current.
func (s *Store) recover() error {
	for _, name := range []string{"store", "generations", "staging"} {
		if err := mkdirAllShared(s.path(name)); err != nil {
			return fmt.Errorf("%w; choose a directory that Caddy may write to", err)
		}
	}
	lock, err := openLock(s.path("lock"))
	switch {
	case errors.Is(err, errLocked):
		s.current, err = s.loadCurrent(false)
		return err
	case err != nil:
		return err
	}
	defer unlock(lock)
	if s.current, err = s.loadCurrent(true); err != nil {
		return err
	}
	s.sweep()
	return nil
}

// Close gives up what one Open returned. The last one closes the store; generations that are still retained stay usable,
// and an install that is under way may go on to its End.
func (s *Store) Close() error {
	stores.mu.Lock()
	defer stores.mu.Unlock()
	if s.refs--; s.refs > 0 {
		return nil
	}
	if s.refs < 0 {
		panic("bug: a package store is closed more often than it was opened")
	}
	delete(stores.open, s.dir)
	s.mu.Lock()
	last := s.current
	s.current, s.closed = s.none, true
	s.mu.Unlock()
	last.Release()
	return nil
}

// Dir is the store's directory, absolute and without links.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

// Current returns the generation that this process has switched to or found at Open. It is never nil: without any, its
// Number is 0, its Site "" and it has no Packages. The caller must Release it.
//
// What another process has switched to meanwhile is found by Begin (see Install.Base).
func (s *Store) Current() *Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.retainLocked()
}

// mkdirAllShared makes a directory and those above it, as far as they are not there, readable for all whatever the umask.
func mkdirAllShared(dir string) error {
	if stat, err := os.Stat(dir); err == nil {
		if !stat.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
		}
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := mkdirAllShared(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil // another process was faster
		}
		return err
	}
	return os.Chmod(dir, 0o755)
}

var errLocked = errors.New("another process holds the lock")

// openLock makes and opens a file and locks it, without waiting; errLocked when another process, or another install of
// this one, holds it.
func openLock(path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(file, unix.LOCK_EX); err != nil {
			_ = file.Close()
			return nil, err
		}
		if sameFile(file, path) {
			return file, nil
		}
		unlock(file) // removed meanwhile: this lock keeps nobody away
	}
}

// flock locks or converts a lock without waiting; errLocked when it cannot.
func flock(file *os.File, how int) error {
	for {
		switch err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return errLocked
		default:
			return &fs.PathError{Op: "flock", Path: file.Name(), Err: err}
		}
	}
}

// unlock does not leave it to the close, since a process that is being started holds a duplicate for a moment.
func unlock(file *os.File) {
	_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
	_ = file.Close()
}

// sameFile says whether path still leads to an open file.
func sameFile(file *os.File, path string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(path)
	return err == nil && os.SameFile(ours, theirs)
}
