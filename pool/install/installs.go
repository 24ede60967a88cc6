package install

import (
	"log/slog"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// Host is what package install needs of the pool whose programs import the packages.
type Host struct {
	// Store keeps the packages; nil where nothing can be installed.
	Store *packages.Store
	// Plan is the confinement of programs, without packages.
	Plan confine.Plan
	// Python is the interpreter that packages are for.
	Python process.Interpreter
	// Logger receives events, never the output of packages.
	Logger *slog.Logger
	// Grace is how long installs may go on after Drain; 0 ends them at once.
	Grace time.Duration
}

// Installs installs packages, one after the other, each in confined processes of its own. Make it with New, and Close it
// before the store. All methods may be called concurrently.
type Installs struct {
	host       Host
	pipLook    pipLook
	background sync.WaitGroup // installs under way

	// mu guards what follows.
	mu        sync.Mutex
	closed    bool
	draining  bool                      // Drain was called: new installs are refused
	closing   chan struct{}             // closed by Close
	graceOver chan struct{}             // closed Host.Grace after Drain: remaining installs end
	shared    map[string]*sharedInstall // installs that wait or run, by what they install
}

// New returns Installs for a host. The caller must Close them.
func New(h Host) *Installs {
	return &Installs{host: h, closing: make(chan struct{}), graceOver: make(chan struct{}), shared: map[string]*sharedInstall{}}
}

// Close refuses new installs and ends those that wait or run. It returns when their processes have ended.
func (s *Installs) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.background.Wait()
}
