package jupyter

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Slots bounds how many processes the kernels of a pool hold at once, idle or not, so that other executions find
// workers. All fronts of the pool share it. It is safe for concurrent use. Make it with NewSlots.
type Slots struct {
	taken chan struct{}
	// waiting counts kernels that want a slot, ending the slots that will be free in a moment.
	waiting, ending atomic.Int64

	mu     sync.Mutex
	fronts map[*Front]struct{}
}

var errNoSlot = errors.New("no slot became free")

// NewSlots leaves half of the workers, of which there are most, to others.
func NewSlots(workers int) *Slots {
	return &Slots{taken: make(chan struct{}, max(1, workers/2)), fronts: map[*Front]struct{}{}}
}

// take waits for a slot, in the order of those who ask, until something comes from interrupts or ctx ends. When there is none,
// it ends the process of an idle kernel to free one. Who has taken one must give it back.
func (s *Slots) take(ctx context.Context, interrupts <-chan struct{}, longest time.Duration) error {
	select {
	case s.taken <- struct{}{}:
		return nil
	default:
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	s.makeRoom()
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case s.taken <- struct{}{}:
		return nil
	case <-timer.C:
		return errNoSlot
	case <-interrupts:
		return context.Canceled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Slots) give() { <-s.taken }

// wanted says whether more kernels wait than slots are about to be free.
func (s *Slots) wanted() bool { return s.waiting.Load() > s.ending.Load() }

// add makes the idle kernels of a front give way to whoever waits, and remove ends that.
func (s *Slots) add(f *Front) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fronts[f] = struct{}{}
}

func (s *Slots) remove(f *Front) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.fronts, f)
}

// makeRoom ends the process of the kernel that has been idle longest without a connection, whichever front it belongs to,
// when others wait for one.
func (s *Slots) makeRoom() {
	if !s.wanted() {
		return
	}
	kernels := s.kernels()
	slices.SortFunc(kernels, func(a, b *kernel) int { return a.lastUse().Compare(b.lastUse()) })
	for _, k := range kernels {
		if p := k.spare(); p != nil {
			p.end(endedForRoom)
			return
		}
	}
}

// kernels lists those of all fronts.
func (s *Slots) kernels() (kernels []*kernel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.fronts {
		kernels = append(kernels, f.list()...)
	}
	return kernels
}

// endedForRoom completes "the process …".
const endedForRoom = "was ended to make room for another kernel"

// spare gives up the process of a kernel that nobody is connected to and returns it; nil when it has none to spare.
func (k *kernel) spare() *process {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.process
	if p == nil || k.running != nil || len(k.sockets) > 0 {
		return nil
	}
	k.process, k.lost = nil, endedForRoom
	return p
}

func (k *kernel) lastUse() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}
