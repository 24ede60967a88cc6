package packages

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lockPoll is how often a Begin tries again to take the store's lock from another process. flock(2) could wait for the lock,
// but not end that wait with a context.
const lockPoll = 25 * time.Millisecond

// Install builds the next generation of a store and switches to it. A store's directory has at most one Install at a time, over
// all processes. The order of calls is Unpack and Keep for each wheel that is not Stored, then Build, Switch and End. Unpack
// and Keep may be called concurrently for different wheels. After End no method but End may be called.
type Install struct {
	store   *Store
	lock    *os.File // the store's lock
	base    *Generation
	staging string   // the install's own directory below staging/
	owner   *os.File // the lock of that directory

	mu       sync.Mutex
	unpacked int           // number of the last wheel that was unpacked, which names its directory
	built    []*Generation // by Build; the install has a reference to each
	ended    bool
}

// Begin starts an install. It waits until the installs that were begun earlier in this process have ended, and then until no
// other process installs. When ctx ends during the wait, Begin returns an error that wraps ctx's. The caller must End the
// install.
func (s *Store) Begin(ctx context.Context) (*Install, error) {
	if err := s.awaitTurn(ctx); err != nil {
		return nil, fmt.Errorf("waiting for another install to end: %w", err)
	}
	lock, err := s.awaitLock(ctx)
	if err != nil {
		s.passTurn()
		return nil, fmt.Errorf("waiting for another process's install to end: %w", err)
	}
	i := &Install{store: s, lock: lock}
	if err := i.prepare(); err != nil {
		i.End()
		return nil, fmt.Errorf("beginning an install in %s: %w", s.dir, err)
	}
	return i, nil
}

func (i *Install) prepare() error {
	var err error
	if i.base, err = i.store.loadCurrent(true); err != nil {
		return err
	}
	i.staging = i.store.path("staging", rand.Text())
	for _, dir := range []string{i.staging, i.staging + "/unpacked"} {
		if err := mkdirAllShared(dir); err != nil {
			return err
		}
	}
	if err := os.Mkdir(i.Dir(), 0o700); err != nil {
		return err
	}
	i.owner, err = openLock(i.staging + "/lock")
	return err
}

// awaitTurn waits until the other installs of this process have ended, first come, first served. passTurn ends the turn.
func (s *Store) awaitTurn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if !s.installing {
		s.installing = true
		s.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	s.waiting = append(s.waiting, turn)
	s.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	at := slices.Index(s.waiting, turn)
	if at >= 0 {
		s.waiting = slices.Delete(s.waiting, at, at+1)
	}
	s.mu.Unlock()
	if at < 0 { // the turn was given when ctx ended, too: pass it on
		s.passTurn()
	}
	return ctx.Err()
}

func (s *Store) passTurn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.installing = false
		return
	}
	close(s.waiting[0])
	s.waiting = slices.Delete(s.waiting, 0, 1)
}

// awaitLock waits until no other process holds the store's lock, and returns it locked.
func (s *Store) awaitLock(ctx context.Context) (*os.File, error) {
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		lock, err := openLock(s.path("lock"))
		if !errors.Is(err, errLocked) {
			return lock, err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Dir is a directory for temporary files of the install, such as downloads. Only Caddy's user may read it; End removes it.
func (i *Install) Dir() string { return i.staging + "/private" }

// Base is the generation that was current on disk when the install began, from whose packages the next one must start. It
// differs from Store.Current when another process has switched; Switch(ctx, Base()) makes this process follow. Base is valid
// until End.
func (i *Install) Base() *Generation { return i.base }

// Stored returns the package of the wheel with this SHA-256, in lower-case hexadecimal, when the store has an entry for it.
func (i *Install) Stored(sha256 string) (Package, bool) {
	if !isSHA256(sha256) {
		return Package{}, false
	}
	found, _ := os.ReadDir(i.store.path("store"))
	for _, entry := range found {
		if !strings.HasSuffix(entry.Name(), "-"+sha256[:entryHashDigits]) {
			continue
		}
		if p, err := readEntry(i.store.path("store", entry.Name())); err == nil && p.SHA256 == sha256 {
			return p, true
		}
	}
	return Package{}, false
}

// Unpacked is a wheel that was checked and unpacked, and is not in the store yet.
type Unpacked struct {
	// Package is what the wheel's metadata says; SHA256 is that of the file that was read, and Bytes does not count compiled
	// files yet.
	Package Package
	// Site is the directory with the unpacked files, to compile from. It is readable for all, and nothing may be written
	// there. Keep and End remove it.
	Site string

	maxCompiledBytes int64
}

// Unpack checks a wheel, whose file must have the name that the index gave it, and unpacks it into a directory of the install.
// A *WheelError means that the wheel is refused for good; other errors are the context's or the file system's. The wheel's file
// is not changed.
func (i *Install) Unpack(ctx context.Context, wheelPath string, l WheelLimits) (*Unpacked, error) {
	i.mu.Lock()
	i.unpacked++
	dir := i.staging + "/unpacked/" + strconv.Itoa(i.unpacked)
	i.mu.Unlock()
	u := &Unpacked{Site: dir + "/site", maxCompiledBytes: l.withDefaults().MaxBytes}
	err := mkdirAllShared(u.Site)
	if err == nil {
		u.Package, err = unpackWheel(ctx, wheelPath, u.Site, l)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return u, nil
}

// End removes the generations that were not switched to, temporary files and unused entries, and lets the next install begin.
// Further calls do nothing.
func (i *Install) End() {
	i.mu.Lock()
	ended, built := i.ended, i.built
	i.ended, i.built = true, nil
	i.mu.Unlock()
	if ended {
		return
	}
	s := i.store
	for _, g := range built {
		g.Release()
	}
	if i.base != nil {
		i.base.Release()
	}
	if i.staging != "" {
		s.removeAll(i.staging)
	}
	if i.owner != nil {
		unlock(i.owner)
	}
	s.sweeping.Lock()
	s.sweep()
	unlock(i.lock)
	s.sweeping.Unlock()
	s.passTurn()
}

// nextNumber returns the number for the next generation and writes it to the file of the store's lock. Otherwise the number of
// a generation that was built, never switched to and removed would be given again.
func (i *Install) nextNumber() (int, error) {
	s := i.store
	numbers, err := s.generationNumbers()
	if err != nil {
		return 0, err
	}
	text := make([]byte, 20)
	n, err := i.lock.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	noted, _ := strconv.Atoi(strings.TrimSpace(string(text[:n]))) // 0 when a crash has left something else than a number
	s.mu.Lock()
	s.highest = max(s.highest, noted, i.base.Number, slices.Max(append(numbers, 0))) + 1
	number := s.highest
	s.mu.Unlock()
	_, err = i.lock.WriteAt([]byte(strconv.Itoa(number)+"\n"), 0)
	return number, err
}
