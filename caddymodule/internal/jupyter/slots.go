package jupyter

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// Slots bounds how many processes the kernels of a pool hold at once, idle or not, so that other executions find
// workers. It is safe for concurrent use. Make it with NewSlots.
type Slots struct {
	taken chan struct{}
	// waiting counts kernels that want a place, ending the places that will be free in a moment.
	waiting, ending atomic.Int64
}

var errNoSlot = errors.New("no place became free")

// NewSlots leaves half of the workers, of which there are most, to others.
func NewSlots(workers int) *Slots {
	return &Slots{taken: make(chan struct{}, max(1, workers/2))}
}

// take waits for a place, in the order of those who ask, until something comes from interrupts or ctx ends. wait is called
// when there is none, to free one perhaps. Who has taken one must give it back.
func (p *Slots) take(ctx context.Context, interrupts <-chan struct{}, longest time.Duration, wait func()) error {
	select {
	case p.taken <- struct{}{}:
		return nil
	default:
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	wait()
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case p.taken <- struct{}{}:
		return nil
	case <-timer.C:
		return errNoSlot
	case <-interrupts:
		return context.Canceled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wanted says whether more kernels wait than places are about to be free.
func (p *Slots) wanted() bool { return p.waiting.Load() > p.ending.Load() }

func (p *Slots) give() { <-p.taken }

// makeRoom ends the process of the kernel that has been idle longest without a connection, when others wait for one.
func (f *Front) makeRoom() {
	if !f.o.Slots.wanted() {
		return
	}
	kernels := f.list()
	slices.SortFunc(kernels, func(a, b *kernel) int { return a.lastUse().Compare(b.lastUse()) })
	for _, k := range kernels {
		if p := k.spare(); p != nil {
			p.end("was ended to make room for another kernel")
			return
		}
	}
}

// spare gives up the process of a kernel that nobody is connected to and returns it; nil when it has none to spare.
func (k *kernel) spare() *process {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.process
	if p == nil || k.running != nil || len(k.sockets) > 0 {
		return nil
	}
	k.process, k.lost = nil, "was ended to make room for another kernel"
	return p
}

func (k *kernel) lastUse() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}
