package packages

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// currentPrefix is how the links are named that become current.
const currentPrefix = "current."

// readCurrent returns the number that current points to, 0 when there is no such link, errBroken when it is something else.
func (s *Store) readCurrent() (int, error) {
	target, err := os.Readlink(s.path("current"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("%w: current is not a link", errBroken)
	}
	if err != nil {
		return 0, err
	}
	text, below := strings.CutPrefix(target, "generations/")
	number, isNumber := generationNumber(text)
	if !below || !isNumber {
		return 0, fmt.Errorf("%w: current is a link to %.200q", errBroken, target)
	}
	return number, nil
}

// pointCurrent makes a generation, which the caller has a reference to, the current one; 0 for none. It is not durable
// before syncDir.
func (s *Store) pointCurrent(number int) error {
	if number == 0 {
		return os.RemoveAll(s.path("current"))
	}
	link := s.path(currentPrefix + rand.Text())
	if err := os.Symlink("generations/"+strconv.Itoa(number), link); err != nil {
		return err
	}
	err := os.Rename(link, s.path("current"))
	if errors.Is(err, unix.EISDIR) || errors.Is(err, fs.ErrExist) { // not of our making
		if err = os.RemoveAll(s.path("current")); err == nil {
			err = os.Rename(link, s.path("current"))
		}
	}
	if err != nil {
		_ = os.Remove(link)
	}
	return err
}

// loadCurrent returns what current points to, with a reference. With repair, for which the caller must hold the lock, a
// broken one is replaced on disk, too.
func (s *Store) loadCurrent(repair bool) (*Generation, error) {
	for deadline := time.Now().Add(5 * time.Second); ; {
		number, err := s.readCurrent()
		if err == nil && number == 0 {
			return s.none, nil
		}
		if err == nil {
			var g *Generation
			if g, err = s.openGeneration(number); err == nil {
				return g, nil
			}
		}
		if again, _ := s.readCurrent(); again != number && time.Now().Before(deadline) {
			continue // another process has switched in between
		}
		switch {
		case errors.Is(err, errLocked) && time.Now().Before(deadline):
			time.Sleep(time.Millisecond) // another process holds it for as long as it takes to see that it is current
		case errors.Is(err, errBroken):
			return s.fallBack(number, err, repair)
		default:
			return nil, err
		}
	}
}

// fallBack returns the newest whole generation in the place of a broken one, or none. A newer one than that was never
// current, and perhaps never whole on disk.
func (s *Store) fallBack(broken int, cause error, repair bool) (*Generation, error) {
	numbers, err := s.generationNumbers()
	if err != nil {
		return nil, err
	}
	g := s.none
	for _, number := range slices.Backward(numbers) {
		if broken != 0 && number >= broken {
			continue
		}
		if found, err := s.openGeneration(number); err == nil {
			g = found
			break
		} else if !errors.Is(err, errBroken) && !errors.Is(err, errLocked) {
			return nil, err
		}
	}
	s.log.Error("the current generation of packages is broken and replaced by an older one; install what is missing again",
		"store", s.dir, "generation", broken, "replaced_by", g.Number, "error", cause)
	if !repair {
		return g, nil
	}
	err = s.pointCurrent(g.Number)
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		g.Release()
		return nil, err
	}
	return g, nil
}

// generationNumbers lists what is in generations, whole or not, in order.
func (s *Store) generationNumbers() ([]int, error) {
	found, err := os.ReadDir(s.path("generations"))
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, entry := range found {
		if number, ok := generationNumber(entry.Name()); ok {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func generationNumber(text string) (int, bool) {
	number, err := strconv.Atoi(text)
	return number, err == nil && number > 0 && strconv.Itoa(number) == text
}

// sweep removes what nothing names and no process uses. The caller must hold the lock. What cannot be removed is left to
// the next sweep.
func (s *Store) sweep() {
	found, _ := os.ReadDir(s.dir)
	for _, entry := range found {
		if strings.HasPrefix(entry.Name(), currentPrefix) && entry.Type() == fs.ModeSymlink {
			_ = os.Remove(s.path(entry.Name()))
		}
	}
	s.sweepStaging()
	numbers, err := s.generationNumbers()
	if err != nil {
		s.log.Warn("cannot look for generations of packages that nothing uses", "store", s.dir, "error", err)
		return
	}
	for _, number := range numbers {
		hold, err := os.Open(s.path("generations", strconv.Itoa(number), "manifest.json"))
		if err == nil || errors.Is(brokenWhenGone(err), errBroken) { // nobody can use what has no manifest
			s.removeUnused(number, hold)
		}
		if hold != nil {
			unlock(hold)
		}
	}
	s.sweepEntries()
}

func (s *Store) sweepStaging() {
	found, _ := os.ReadDir(s.path("staging"))
	for _, entry := range found {
		dir := s.path("staging", entry.Name())
		// The lock of all installs is ours, so that its owner is dead; unless someone has removed that file.
		owner, err := os.OpenFile(dir+"/lock", os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			if errors.Is(brokenWhenGone(err), errBroken) {
				s.removeAll(dir)
			}
			continue
		}
		if flock(owner, unix.LOCK_EX) == nil {
			s.removeAll(dir)
		}
		unlock(owner)
	}
}

// removeUnused removes a generation unless it is current or in use, and says whether it has. Hold is its manifest, under
// our own lock or none, or nil when it has none.
func (s *Store) removeUnused(number int, hold *os.File) bool {
	// Whoever makes a generation current holds a lock on it while it does. So the order matters: lock, then look.
	if hold != nil && flock(hold, unix.LOCK_EX) != nil {
		return false
	}
	if current, err := s.readCurrent(); err != nil || current == number {
		return false
	}
	return s.removeAside(s.path("generations", strconv.Itoa(number)))
}

// removeAside makes a directory disappear at once, then removes it.
func (s *Store) removeAside(dir string) bool {
	aside := s.path("staging", "removed-"+rand.Text())
	if err := os.Rename(dir, aside); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot remove packages that nothing uses", "directory", dir, "error", err)
		}
		return false
	}
	s.removeAll(aside)
	return true
}

func (s *Store) removeAll(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		s.log.Warn("cannot remove packages that nothing uses", "directory", dir, "error", err)
	}
}

// sweepEntriesUnlessInstalling leaves the entries to the end of an install that is under way: it may need those that no
// generation names yet.
func (s *Store) sweepEntriesUnlessInstalling() {
	s.sweeping.Lock() // a sweep that is under way may have looked before our generation was gone
	defer s.sweeping.Unlock()
	if lock, err := openLock(s.path("lock")); err == nil {
		s.sweepEntries()
		unlock(lock)
	}
}

// sweepEntries removes the entries that no generation names. The caller must hold the lock.
func (s *Store) sweepEntries() {
	named, err := s.namedEntries()
	if err != nil {
		s.log.Warn("cannot look for packages that nothing uses", "store", s.dir, "error", err)
		return
	}
	found, _ := os.ReadDir(s.path("store"))
	for _, entry := range found {
		if !named[entry.Name()] {
			s.removeAside(s.path("store", entry.Name()))
		}
	}
}

// namedEntries are those of all generations on disk, used by whichever process.
func (s *Store) namedEntries() (map[string]bool, error) {
	numbers, err := s.generationNumbers()
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, number := range numbers {
		set, err := s.readManifest(number)
		if errors.Is(err, errBroken) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, p := range set {
			if name, err := entryName(p); err == nil {
				named[name] = true
			}
		}
	}
	return named, nil
}

// syncDir makes what happened to the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
