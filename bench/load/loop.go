package main

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop drives all clients from one thread.
type loop struct {
	clients []*client
	// Runs that start from begin to end are measured, one at least of each client.
	begin, end time.Time
	think      time.Duration // pause of a client between two requests

	poller int
	events [64]unix.EpollEvent
	active int // clients that have not ended
}

// run returns when each client's last request is answered: it counts whole, and does not burden what is measured next.
func (l *loop) run() (err error) {
	if l.poller, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("making a poller: %w", err)
	}
	defer func() { _ = unix.Close(l.poller) }()
	l.active = len(l.clients)
	now := time.Now()
	for i, c := range l.clients {
		// Connections arrive one after the other, so that a server with several accepting processes has a chance to
		// share them out.
		c.due = now.Add(time.Duration(i) * 3 * time.Millisecond)
		defer c.close()
	}
	for {
		next := l.start(time.Now())
		if l.active == 0 {
			return nil
		}
		n, err := wait(l.poller, l.events[:], next)
		if err != nil {
			return err
		}
		for _, event := range l.events[:n] {
			l.receive(l.clients[event.Fd])
		}
	}
}

// start sends what is due, and returns when something is the next time: a request, or the end of waiting for an answer.
func (l *loop) start(now time.Time) (next time.Time) {
	for i, c := range l.clients {
		switch {
		case c.due.IsZero() && c.started.IsZero(): // it has ended
			continue
		case c.started.IsZero() && now.Before(c.due):
		case c.started.IsZero():
			if !now.Before(l.end) && !c.first.IsZero() {
				c.due = time.Time{}
				c.close()
				l.active--
				continue
			}
			if err := l.send(i, now); err != nil {
				l.ended(c, now, false, err)
			}
		case now.Sub(c.started) > answerDeadline:
			l.ended(c, now, false, errors.New("no answer came in time"))
		}
		at := c.due
		if !c.started.IsZero() {
			at = c.started.Add(answerDeadline)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

func (l *loop) send(i int, now time.Time) error {
	c := l.clients[i]
	c.started = now
	if c.fd < 0 {
		if err := c.connect(); err != nil {
			return err
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(l.poller, unix.EPOLL_CTL_ADD, c.fd, &event); err != nil {
			return fmt.Errorf("watching a connection: %w", err)
		}
	}
	return c.send()
}

// receive takes what has come for one client.
func (l *loop) receive(c *client) {
	if c.fd < 0 {
		return // closed by now
	}
	if c.started.IsZero() { // nothing was asked, so the server has closed an idle connection
		c.close()
		return
	}
	if over, right, err := c.receive(); over {
		l.ended(c, time.Now(), right, err)
	}
}

// ended takes note of the end of a client's request.
func (l *loop) ended(c *client, now time.Time, right bool, err error) {
	measured := !c.started.Before(l.begin)
	if measured {
		if c.first.IsZero() {
			c.first = c.started
		}
		c.last = now
	}
	c.due = now.Add(l.think)
	switch {
	case err != nil:
		c.errors++
		c.fault(err)
		c.close()
		c.due = c.due.Add(retryPause)
	case !right:
		c.wrong++
	case measured:
		c.latencies = append(c.latencies, now.Sub(c.started))
	}
	c.started = time.Time{}
}

// wait returns how many of the events have come by then. It is a raw system call: the runtime would look after a thread
// that may block, with one of its own, and that costs more than all the rest of this loop.
func wait(poller int, events []unix.EpollEvent, then time.Time) (int, error) {
	timeout := max(0, time.Until(then))
	milliseconds := min((timeout+time.Millisecond-1)/time.Millisecond, math.MaxInt32)
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(poller), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(milliseconds), 0, 0)
	if errno == unix.EINTR { // the runtime's own signals, for one
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("waiting for answers: %w", errno)
	}
	return int(n), nil
}
