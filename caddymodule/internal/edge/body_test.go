package edge

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What a body holds follows what came of it, and is given back.
func TestBodiesHoldWhatCame(t *testing.T) {
	t.Parallel()
	bodies := NewBodies(10<<20, 100<<20, 0)
	silent, _ := io.Pipe()
	r := httptest.NewRequest(http.MethodPost, "/execute", silent)
	r.ContentLength = 10 << 20 // announced, and never sent
	done := make(chan struct{})
	go func() {
		defer close(done)
		if body, refused := bodies.Read(httptest.NewRecorder(), r); refused == nil {
			body.Free()
			t.Error("half a body was taken for a whole one")
		}
	}()
	for bodies.held.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if held := bodies.held.Load(); held > 4<<10 {
		t.Errorf("%d bytes are held for a body of which nothing came", held)
	}
	_ = silent.CloseWithError(io.ErrUnexpectedEOF)
	<-done

	for _, size := range []int{0, 1, firstBodyBytes, firstBodyBytes + 1, 1 << 20} {
		text := strings.Repeat("x", size)
		body, err := bodies.ReadMessage(strings.NewReader(text))
		if err != nil || string(body.Bytes()) != text {
			t.Fatalf("%d bytes: got %d, %v", size, len(body.Bytes()), err)
		}
		if held := bodies.held.Load(); held > int64(max(firstBodyBytes, 2*size)+firstBodyBytes) {
			t.Errorf("%d bytes hold %d", size, held)
		}
		body.Free()
	}
	if _, err := bodies.ReadMessage(strings.NewReader(strings.Repeat("x", 10<<20+1))); !errors.Is(err, ErrTooLong) {
		t.Errorf("a body above the limit: %v", err)
	}
	if held := bodies.held.Load(); held != 0 {
		t.Errorf("%d bytes are held in the end", held)
	}
}

// All bodies together are bounded, and who is refused hears when to come again.
func TestBodiesAreBoundedTogether(t *testing.T) {
	t.Parallel()
	bodies := NewBodies(1<<20, 3<<20, 0)
	text := strings.Repeat("x", 1<<20)
	var kept []*Body
	refusals := 0
	for range 10 {
		body, refused := bodies.Read(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/execute", strings.NewReader(text)))
		if refused == nil {
			kept = append(kept, body)
			continue
		}
		refusals++
		if refused.Status != http.StatusServiceUnavailable || refused.RetryAfter == 0 || !strings.Contains(refused.Detail, "limits request_bodies") {
			t.Fatalf("got %+v", refused)
		}
	}
	if len(kept) == 0 || refusals == 0 || bodies.held.Load() > 3<<20 {
		t.Errorf("%d were taken, %d refused, %d bytes are held", len(kept), refusals, bodies.held.Load())
	}
	for _, body := range kept {
		body.Free()
	}
	if body, refused := bodies.Read(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/execute", strings.NewReader(text))); refused != nil {
		t.Errorf("refused once there is room again: %v", refused)
	} else {
		body.Free()
	}
}

// deadlined is a writer whose connection has a read deadline.
type deadlined struct {
	http.ResponseWriter
	set func(time.Time) error
}

func (d deadlined) SetReadDeadline(t time.Time) error { return d.set(t) }

// A body that comes too slowly is given up.
func TestBodiesHaveATimeToArrive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		r := httptest.NewRequest(http.MethodPost, "/execute", ours)
		r.ContentLength = 100
		begin := time.Now()
		_, refused := NewBodies(1<<20, 1<<20, time.Minute).Read(deadlined{httptest.NewRecorder(), ours.SetReadDeadline}, r)
		if refused == nil || refused.Status != http.StatusRequestTimeout || time.Since(begin) != time.Minute {
			t.Errorf("got %v after %s", refused, time.Since(begin))
		}
	})
}
