package pool

import (
	"slices"
	"sync"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// maxSessions is how many sessions of processes (setsid(2)) one run may have at once, its own not counted. Where the kernel shares out CPU
// time by session (autogroups in sched(7)), many of them would take the processors from neighbours, whatever the priority of a process
// is. As an ordinary user Caddy can lower that of ten sessions a second (deprioritize).
const maxSessions = 16

// sessions bounds the sessions of processes of the run in a lane. Safe for concurrent use.
type sessions struct {
	lane int // its pid

	mu      sync.Mutex
	granted []int // processes that may have called setsid since, but need not
}

// grant says whether a process may make a session.
func (s *sessions) grant(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	tree := procfs.Descendants(s.lane)
	s.granted = slices.DeleteFunc(s.granted, func(granted int) bool { return !slices.Contains(tree, granted) })
	own := procfs.Session(s.lane)
	leaders := slices.Clone(s.granted)
	for _, member := range tree {
		if leader := procfs.Session(member); leader != own && leader != 0 && !slices.Contains(leaders, leader) {
			leaders = append(leaders, leader)
		}
	}
	if len(leaders) >= maxSessions && !slices.Contains(leaders, pid) {
		return false
	}
	s.granted = append(s.granted, pid)
	return true
}

func (s *sessions) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.granted = nil
}
