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
// Directories in store/ and generations/ are complete and never change: one rename(2) adds and one removes each of them. So
// a process that is killed leaves the old set or the new one, and perhaps leftovers, which the next Open, or the end of the
// next install, removes. store/ and generations/ are readable for all, whatever the umask, since templates read them under
// other user ids.
type Store struct {
	dir  string
	log  *slog.Logger
	none *Generation // current when there is no generation; its Number is 0
	refs int         // how many Opens are not closed yet; guarded by stores.mu

	// sweeping is held during a sweep until the store's lock is unlocked, so that the next sweep of this process waits
	// instead of finding the lock taken. Lock it before mu.
	sweeping sync.Mutex

	mu          sync.Mutex // guards the fields below; nothing slower than one rename is done under it
	current     *Generation
	generations map[int]*Generation // those to which this process has references, by number
	highest     int                 // the highest number of a generation that this process has seen
	installing  bool
	closed      bool            // by the last Close; current is none from then on
	waiting     []chan struct{} // one for each Begin that waits for its turn, in order; closed to give the turn
	watchers    []*watching
}

// stores has the open stores of this process by directory, whose symbolic links are resolved.
var stores = struct {
	mu   sync.Mutex
	open map[string]*Store
}{open: map[string]*Store{}}

// Open returns the store in dir. It makes dir, and the directories above, when they do not exist. Every Open of one
// directory in this process returns the same Store, which logs to the log of the first Open (nil discards). Each Open needs
// a Close.
//
// The first Open removes what a crash has left over, unless another process is installing: that removes it at its end. A
// current generation that is broken (by a damaged disk, or by hand) is replaced by the newest whole one before it, or by
// none, and an error is logged. When a file cannot be read for lack of a permission or of descriptors, nothing is replaced
// and Open returns the error.
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

// recover makes the store's directories, loads the current generation, and sweeps unless another process is installing.
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

// Close ends the use that one Open began. The last Close closes the store. Generations that are still retained stay usable
// after it, and an install that is under way may go on to its End.
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

// Current returns the generation that this process has found at Open or has switched to since. It is never nil: when there is
// none, Number is 0, Site is "" and Packages is empty. The caller must Release it.
//
// Current does not see a switch that another process has made; Begin does (see Install.Base).
func (s *Store) Current() *Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.retainLocked()
}

// mkdirAllShared is os.MkdirAll whose new directories are readable for all, whatever the umask.
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
			return nil // another process has made it meanwhile
		}
		return err
	}
	return os.Chmod(dir, 0o755)
}

var errLocked = errors.New("another process holds the lock")

// openLock opens a file, which it makes when it does not exist, and takes the exclusive lock without waiting. The error is
// errLocked when another process, or another open file of this process, has the lock.
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
		unlock(file) // the file was removed before it was locked: others now lock the new file at this path
	}
}

// flock takes a lock, or converts the one that file has, without waiting (flock(2)). The error is errLocked when others hold
// the lock.
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

// unlock releases a lock and closes its file. Closing alone would not release the lock at once: a child process that is just
// being started has a duplicate of the file descriptor until its exec.
func unlock(file *os.File) {
	_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
	_ = file.Close()
}

// sameFile says whether path leads to the file that is open as file.
func sameFile(file *os.File, path string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(path)
	return err == nil && os.SameFile(ours, theirs)
}
