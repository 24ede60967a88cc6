package mcpserver

import (
	"slices"
	"time"
)

const busySessions = "too many MCP sessions are open, and all are in use"

// open opens a session, in the place of an idle one when as many as allowed are open. It returns false when all are in use.
func (f *Front) open(kind, address string) (*mcpSession, bool) {
	f.makeRoom()
	return f.sessions.add(kind, address)
}

// makeRoom ends an idle session when as many as allowed are open. It returns false when all are in use.
func (f *Front) makeRoom() bool {
	if !f.sessions.full() {
		return true
	}
	id, ok := f.sessions.evict(kindStreamable, kindSSE)
	if ok {
		f.forget(id)
	}
	return ok
}

// evict ends one session of the given kinds that nothing uses, to make room for another, and returns its id; false when all are in use. It
// is one of the client address that has the most. Of those, sessions that never called a tool go first, and then those that have been
// idle for the longest. So whoever opens sessions without end only ends its own, as long as others have fewer.
func (m *mcpSessions) evict(kinds ...string) (id string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := map[string]int{}
	for _, s := range m.open {
		held[s.address]++
	}
	now := time.Now()
	var worst *mcpSession
	var worstIdle time.Duration
	for _, s := range m.open {
		if !slices.Contains(kinds, s.kind) {
			continue
		}
		idle, called, free := s.idleness(now)
		if free && (worst == nil || goesFirst(held[s.address]-held[worst.address], called, worst.called, idle-worstIdle)) {
			worst, worstIdle = s, idle
		}
	}
	if worst == nil {
		return "", false
	}
	delete(m.open, worst.id)
	worst.cancel()
	return worst.id, true
}

// goesFirst compares a session with another one: how many more its address has, whether each has called a tool, and how much longer it has
// been idle.
func goesFirst(more int, called, otherCalled bool, longer time.Duration) bool {
	switch {
	case more != 0:
		return more > 0
	case called != otherCalled:
		return otherCalled
	}
	return longer > 0
}
