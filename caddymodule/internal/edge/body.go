package edge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/dustin/go-humanize"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// drainBytes is how much of a refused body is still read: many clients look at the answer only after they have sent
// everything, and would see a broken connection instead of it.
const drainBytes = 64 << 20

// ReadBody reads at most limit bytes.
func ReadBody(into *bytes.Buffer, r *http.Request, limit int64) *Problem {
	tooLarge := r.ContentLength > limit
	if !tooLarge {
		if r.ContentLength > 0 {
			into.Grow(int(r.ContentLength))
		}
		n, err := io.Copy(into, io.LimitReader(r.Body, limit+1))
		if err != nil {
			return unreadable(err)
		}
		tooLarge = n > limit
	}
	if !tooLarge {
		return nil
	}
	_, _ = io.CopyN(io.Discard, r.Body, drainBytes) //nolint:errcheck // the answer is the same
	return BodyTooLarge(limit)
}

func BodyTooLarge(limit int64) *Problem {
	return NewProblem(http.StatusRequestEntityTooLarge, metrics.KindTooLarge,
		fmt.Sprintf("the request body is larger than %s: make the code or stdin smaller", humanize.IBytes(uint64(limit)))) //nolint:gosec // a limit is positive
}

// unreadable is why a body could not be read. Whatever it is, it happened on the way here.
func unreadable(err error) *Problem {
	if p := AsProblem(err); p.Kind != metrics.KindInternal {
		return p
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return NewProblem(http.StatusRequestEntityTooLarge, metrics.KindTooLarge, "the request body is larger than "+
			humanize.IBytes(uint64(tooLarge.Limit))+", which the site accepts") //nolint:gosec // likewise
	}
	return NewProblem(http.StatusBadRequest, metrics.KindMalformed, "the request body could not be read to its end")
}
