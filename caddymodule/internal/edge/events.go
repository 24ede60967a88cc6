package edge

import (
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// EventsType is the media type of server-sent events.
const EventsType = "text/event-stream"

// AcceptsEvents says whether the client names event streams among what it can read. Those that do not get plain JSON,
// however long it takes.
func AcceptsEvents(r *http.Request) bool {
	for _, value := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(value, ",") {
			if kind, _, err := mime.ParseMediaType(part); err == nil && kind == EventsType {
				return true
			}
		}
	}
	return false
}

// LiftDeadlines exempts an event stream from the server's read and write timeouts, which bound whole requests and would
// cut it. Idle limits on a transfer in flight stay.
func LiftDeadlines(w http.ResponseWriter, r *http.Request) {
	reader, writer := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if reader != nil {
		reader.Deadline.HardDeadline = time.Time{}
	}
	if writer != nil {
		writer.Deadline.HardDeadline = time.Time{}
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // not every writer has deadlines to lift
	_ = c.SetWriteDeadline(time.Time{})
}
