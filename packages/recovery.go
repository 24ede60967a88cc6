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

// currentPrefix begins the name of a new symbolic link, which is then renamed to current.
const currentPrefix = "current."

// readCurrent returns the number of the generation that current points to, 0 when there is no current. The error is
// errBroken when current is no link to a generation.
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

// pointCurrent points current to a generation, to which the caller must hold a reference; 0 removes current. The change is
// durable only after syncDir.
func (s *Store) pointCurrent(number int) error {
	if number == 0 {
		return os.RemoveAll(s.path("current"))
	}
	link := s.path(currentPrefix + rand.Text())
	if err := os.Symlink("generations/"+strconv.Itoa(number), link); err != nil {
		return err
	}
	err := os.Rename(link, s.path("current"))
	if errors.Is(err, unix.EISDIR) || errors.Is(err, fs.ErrExist) { // someone has made a directory of this name
		if err = os.RemoveAll(s.path("current")); err == nil {
			err = os.Rename(link, s.path("current"))
		}
	}
	if err != nil {
		_ = os.Remove(link)
	}
	return err
}

// loadCurrent returns the current generation with a reference, or an older one when it is broken. With repair, for which
// the caller must hold the store's lock, current on disk is then pointed to the older one, too.
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
			time.Sleep(time.Millisecond) // another process holds the lock until removeUnused has seen that the generation is current
		case errors.Is(err, errBroken):
			return s.fallBack(number, err, repair)
		default:
			return nil, err
		}
	}
}

// fallBack returns the newest whole generation before the broken one, or none. Generations after the broken one are passed
// over: they never became current, so their files need not have reached the disk. broken is 0 when current names no
// generation; then every generation is considered.
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

// generationNumbers lists the generations on disk, broken ones included, in ascending order.
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

// sweep removes what is left over: links that never became current, staging directories of dead processes, generations that
// are not current and that no process uses, and entries that no generation names. The caller must hold the store's lock.
// What cannot be removed is left to the next sweep.
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
		if err == nil || errors.Is(brokenWhenGone(err), errBroken) { // without a manifest no process can use it
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
		// The caller holds the store's lock, so the install that owned this directory should be dead. Its own lock is checked
		// all the same, since someone may have removed the file of the store's lock.
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

// removeUnused removes a generation unless it is current or another process uses it, and says whether it did. hold is the
// open manifest, on which this process has a shared lock or none; nil when the generation has no manifest.
func (s *Store) removeUnused(number int, hold *os.File) bool {
	// A process that makes a generation current holds a shared lock on it meanwhile. So take the lock first, and only then
	// read current: in the other order, the generation could become current in between.
	if hold != nil && flock(hold, unix.LOCK_EX) != nil {
		return false
	}
	if current, err := s.readCurrent(); err != nil || current == number {
		return false
	}
	return s.removeAside(s.path("generations", strconv.Itoa(number)))
}

// removeAside renames a directory into staging, so that it disappears at once, and then removes it. A crash in between
// leaves the rest to the next sweep.
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

// sweepEntriesUnlessInstalling calls sweepEntries, unless an install is under way: that may need entries that no generation
// names yet, and sweeps at its end.
func (s *Store) sweepEntriesUnlessInstalling() {
	s.sweeping.Lock() // waits for a sweep under way, which may have read the manifest that the caller has just removed
	defer s.sweeping.Unlock()
	if lock, err := openLock(s.path("lock")); err == nil {
		s.sweepEntries()
		unlock(lock)
	}
}

// sweepEntries removes the entries that no generation names. The caller must hold the store's lock.
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

// namedEntries returns the names of the entries that any generation on disk names, whichever process uses it.
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

// syncDir makes renames, creations and removals in a directory durable (fsync(2)).
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
