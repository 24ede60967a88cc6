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

// lockPoll is how often an install looks whether another process has ended its own. flock(2) can wait, but not for a context.
const lockPoll = 25 * time.Millisecond

// Install is the way from one generation to the next. There is one at a time in a directory, in all processes. The order is
// Unpack and Keep for each wheel that is not Stored, Build, Switch, End. Unpack and Keep may be called concurrently for
// different wheels; no method may be called once End was.
type Install struct {
	store   *Store
	lock    *os.File // of the store's directory
	base    *Generation
	staging string
	owner   *os.File // staging's lock

	mu       sync.Mutex
	unpacked int           // how many there were
	built    []*Generation // each with a reference
	ended    bool
}

// Begin starts an install, once all that began earlier in this process have ended, and then those of other processes. The
// wait ends with ctx, and then its error is returned. The caller must End the install.
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

// awaitTurn waits for the installs of this process, first come, first served.
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
	if at < 0 { // it came all the same
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

// awaitLock waits for the installs of other processes.
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

// Dir is a directory for what is needed on the way, such as downloads. Only Caddy's user may read it; End removes it.
func (i *Install) Dir() string { return i.staging + "/private" }

// Base is what is current in the directory, and what the next generation has to start from. It is newer than
// Store.Current when another process has switched; Switch(ctx, Base()) makes this process follow. Valid until End.
func (i *Install) Base() *Generation { return i.base }

// Stored returns the package of the wheel with this hash (in hexadecimal), when the store has it unpacked already.
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
	// Package is what the wheel says of itself; SHA256 is of the file that was read, Bytes without what is compiled yet.
	Package Package
	// Site is the directory to compile from, readable for all. Nothing may be written there. It is gone after Keep and
	// End.
	Site string

	maxCompiledBytes int64
}

// Unpack checks a wheel, whose file must have the name that the index gave it, and unpacks it. A *WheelError means that the
// wheel is refused, for good; other errors are the context's, or the disk's. The file is only read.
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

// End removes what was not switched to, and lets the next install begin. More calls than one do nothing.
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

// nextNumber gives the next generation its number. The lock's file remembers it, so that one that was built and not
// switched to does not share its number with another.
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
	noted, _ := strconv.Atoi(strings.TrimSpace(string(text[:n]))) // what cannot be read was torn by a crash
	s.mu.Lock()
	s.highest = max(s.highest, noted, i.base.Number, slices.Max(append(numbers, 0))) + 1
	number := s.highest
	s.mu.Unlock()
	_, err = i.lock.WriteAt([]byte(strconv.Itoa(number)+"\n"), 0)
	return number, err
}
