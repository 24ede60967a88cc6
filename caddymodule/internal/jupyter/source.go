package jupyter

import (
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation/markdown"
)

// cellSource is what is run for a cell: its code, and when that does not compile, what Markdown fences around it hold.
type cellSource struct {
	code   string
	others []string
	first  *cellFailure // of the code as it was sent; nil until then
}

// other goes on to the next source after one that did not compile, and returns false when there is none.
func (s *cellSource) other(failure *cellFailure) bool {
	if !failedToCompile(failure) {
		return false
	}
	if s.first == nil {
		if s.others = markdown.Programs(s.code); len(s.others) == 0 {
			return false
		}
		s.first = failure
	}
	if len(s.others) == 0 {
		return false
	}
	s.code, s.others = s.others[0], s.others[1:]
	return true
}

// framed is a frame of a traceback.
var framed = regexp.MustCompile(`(?m)^  File ".*", line \d+, in `)

// failedToCompile reports whether a failure is the compiler's, of the cell itself: an exception that comes out of a cell that runs
// has a frame of it.
func failedToCompile(failure *cellFailure) bool {
	return failure != nil && slices.Contains([]string{"SyntaxError", "IndentationError", "TabError"}, failure.Name) &&
		!framed.MatchString(strings.Join(failure.Traceback, "\n"))
}
