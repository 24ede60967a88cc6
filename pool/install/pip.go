package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// pipFactsAge is how long the facts are cached. After that the interpreter is asked again, since the operator may have installed packages.
const pipFactsAge = time.Minute

// pipFacts describes the operator's interpreter and its pip, as python/pipconfig.py prints it.
type pipFacts struct {
	Version       string            // of pip; "" for none
	Wheel         string            // the wheel from which pip is imported if it is not installed; "" if it is
	DefaultIndex  string            `json:"default_index"` // pip's own
	List          string            // of `pip config list`
	Distributions map[string]string // name to version, names canonical
}

// pipLook caches the facts. Concurrent callers share one run of the interpreter.
type pipLook struct {
	asking singleflight.Group

	mu    sync.Mutex
	at    time.Time
	facts pipFacts
}

// known returns the facts, and whether there are any that are younger than pipFactsAge.
func (l *pipLook) known() (pipFacts, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.facts, !l.at.IsZero() && time.Since(l.at) < pipFactsAge
}

// pip returns the facts, and asks the interpreter if need be. ctx ends only the caller's wait: the interpreter is still asked, for the
// next caller.
func (s *Installs) pip(ctx context.Context) (pipFacts, error) {
	if facts, ok := s.pipLook.known(); ok {
		return facts, nil
	}
	asked := s.pipLook.asking.DoChan("", func() (any, error) {
		if facts, ok := s.pipLook.known(); ok { // a call that ended just now has fetched them
			return facts, nil
		}
		facts, err := s.askPip()
		if err != nil {
			return pipFacts{}, err
		}
		s.pipLook.mu.Lock()
		defer s.pipLook.mu.Unlock()
		s.pipLook.facts, s.pipLook.at = facts, time.Now()
		return facts, nil
	})
	select {
	case answer := <-asked:
		return answer.Val.(pipFacts), answer.Err
	case <-ctx.Done():
		return pipFacts{}, context.Cause(ctx)
	}
}

// askPip asks the interpreter. It runs unconfined, with Caddy's own environment, so that pip finds the operator's configuration. Close
// ends the process and waits for it.
func (s *Installs) askPip() (pipFacts, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return pipFacts{}, ErrClosed
	}
	s.background.Add(1) // under the mutex, so that Close waits for it
	s.mu.Unlock()
	defer s.background.Done()
	ctx, cancel := context.WithTimeout(context.Background(), process.ProbeTimeout)
	defer cancel()
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	var stdout, stderr bytes.Buffer
	// -I: nothing is imported from the directory in which Caddy was started.
	cmd := exec.CommandContext(ctx, s.host.Python.Executable, "-I", "-c", process.Source("pipconfig"))
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	cmd.Dir = "/"
	if err := cmd.Run(); err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return pipFacts{}, ErrClosed
		}
		return pipFacts{}, fmt.Errorf("asking %s about pip: %w%s", s.host.Python.Executable, err, process.LastLine(stderr.String()))
	}
	var facts pipFacts
	if err := json.Unmarshal(stdout.Bytes(), &facts); err != nil {
		return pipFacts{}, fmt.Errorf("asking %s about pip: %w", s.host.Python.Executable, err)
	}
	canonical := make(map[string]string, len(facts.Distributions))
	for name, version := range facts.Distributions {
		canonical[packages.Canonical(name)] = version
	}
	facts.Distributions = canonical
	return facts, nil
}

// PipConfig returns what pip is configured to use on this system: its environment, its files, and pip's own default. The
// error is ErrNoPip when the interpreter has none.
func (s *Installs) PipConfig(ctx context.Context) (packages.PipConfig, error) {
	facts, err := s.pip(ctx)
	if err != nil {
		return packages.PipConfig{}, err
	}
	if facts.Version == "" {
		return packages.PipConfig{}, ErrNoPip
	}
	config := packages.ParsePipConfig(facts.List)
	config.DefaultIndexURL = facts.DefaultIndex
	return config, nil
}

// provides says whether the packages of base, or else of the interpreter, satisfy req. version is the one that is there, "" for none.
func (s *Installs) provides(ctx context.Context, base *packages.Generation, req policy.Requirement) (version string, ok bool, err error) {
	if found, ok := base.Find(req.Name); ok {
		for _, extra := range req.Extras {
			if !slices.Contains(found.Extras, extra) {
				return found.Version, false, nil
			}
		}
		return found.Version, req.Satisfied(found.Version), nil
	}
	facts, err := s.pip(ctx)
	if err != nil {
		return "", false, err
	}
	version, ok = facts.Distributions[req.Name]
	return version, ok && len(req.Extras) == 0 && req.Satisfied(version), nil
}

// InstalledPackages returns the number of the current set of packages, the packages in it, and as interpreter (name to version) the packages
// of the operator's interpreter that the set does not replace by another version. It needs a Store.
func (s *Installs) InstalledPackages(ctx context.Context) (generation int, set []packages.Package, interpreter map[string]string, err error) {
	facts, err := s.pip(ctx)
	if err != nil {
		return 0, nil, nil, err
	}
	interpreter = map[string]string{}
	for name, version := range facts.Distributions {
		interpreter[name] = version
	}
	if current := s.host.Store.Current(); current != nil {
		defer current.Release()
		generation, set = current.Number, current.Packages
		for _, one := range set {
			delete(interpreter, one.Name)
		}
	}
	return generation, set, interpreter, nil
}
