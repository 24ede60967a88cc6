package jupyter

import (
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation/markdown"
)

// cellSource is the source to run for a cell: the code as it was sent, and if that does not compile, the programs in its Markdown
// fences.
type cellSource struct {
	code   string       // the source to run next
	others []string     // programs that have not been tried yet
	first  *cellFailure // of the code as it was sent; nil while that is what runs
}

// other sets code to the next source when failure says that the last one did not compile. It returns false when failure is another
// one, or no source is left.
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

// framed matches the line of a traceback that names a frame.
var framed = regexp.MustCompile(`(?m)^  File ".*", line \d+, in `)

// failedToCompile reports whether the cell's own source did not compile. A SyntaxError that running code has raised, for example by an
// import, has a frame of the cell in its traceback.
func failedToCompile(failure *cellFailure) bool {
	return failure != nil && slices.Contains([]string{"SyntaxError", "IndentationError", "TabError"}, failure.Name) &&
		!framed.MatchString(strings.Join(failure.Traceback, "\n"))
}
