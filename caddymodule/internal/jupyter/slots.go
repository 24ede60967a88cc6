package jupyter

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Slots bounds how many processes the kernels of a pool have at once, idle ones included, so that other executions find workers. All
// fronts of the pool share it. It is safe for concurrent use. Make it with NewSlots.
type Slots struct {
	taken chan struct{} // holds one element for each slot that is taken
	// waiting counts the kernels that wait for a slot, and ending the processes that are being ended and will give theirs back.
	waiting, ending atomic.Int64

	mu     sync.Mutex
	fronts map[*Front]struct{}
}

var errNoSlot = errors.New("no slot became free")

// NewSlots makes slots for half of the pool's workers, but at least one. The other half is left to other executions.
func NewSlots(workers int) *Slots {
	return &Slots{taken: make(chan struct{}, max(1, workers/2)), fronts: map[*Front]struct{}{}}
}

// take takes a slot, which must be given back with give. When all are taken, it ends the process of an idle kernel to free one, and
// waits in the order of the calls. It fails with errNoSlot after longest, with context.Canceled at an interrupt, or when ctx ends.
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

// wanted reports whether more kernels wait for a slot than processes are being ended.
func (s *Slots) wanted() bool { return s.waiting.Load() > s.ending.Load() }

// add lets makeRoom end processes of the front's idle kernels; remove undoes that.
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

// makeRoom ends one process when kernels wait for a slot: that of the kernel, of any front, which has been idle and without a
// connection for the longest time. It does nothing when there is no such kernel.
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

// kernels lists the kernels of all fronts.
func (s *Slots) kernels() (kernels []*kernel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.fronts {
		kernels = append(kernels, f.list()...)
	}
	return kernels
}

// endedForRoom completes the sentence "the process …".
const endedForRoom = "was ended to make room for another kernel"

// spare detaches the kernel's process and returns it for the caller to end; nil when there is none, a cell runs, or a client is
// connected.
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
