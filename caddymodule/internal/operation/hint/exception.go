package hint

import (
	"regexp"
	"strings"
)

// exception is what a traceback says.
type exception struct {
	// name is the exception's, with its module: "urllib.error.URLError".
	name string
	// message is what follows the name, of as many lines as it has.
	message string
	// last is the last line of all: name and message, when the message has one line.
	last string
	// block is the traceback of the exception itself; chain is all that was read, with the tracebacks of its causes.
	block, chain string
}

// exceptionLine matches the line with an exception's name. Python indents all other lines of a traceback.
var exceptionLine = regexp.MustCompile(`(?m)^((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?::[ \n]|:?$)`)

// readException reads the end of standard error. What it finds there need not be a traceback.
func readException(errs string) exception {
	errs = strings.TrimRight(errs, "\n")
	x := exception{chain: errs, block: errs, last: errs[strings.LastIndexByte(errs, '\n')+1:]}
	if at := strings.LastIndex(errs, "Traceback (most recent call last):"); at >= 0 {
		x.block = errs[at:]
	}
	// The message follows the last frame. A library may print frames within a message, and then its first lines are lost.
	text := x.block
	if at := strings.LastIndex(text, "\n  File \""); at >= 0 {
		text = text[at+1:]
	}
	if strings.HasPrefix(text, "  File \"") || strings.HasPrefix(text, "Traceback ") {
		_, text, _ = strings.Cut(text, "\n")
	}
	for text != "" && (text[0] == ' ' || text[0] == '\n') { // the frame's line of code, and the marks under it
		_, text, _ = strings.Cut(text, "\n")
	}
	if found := exceptionLine.FindStringSubmatchIndex(text); found != nil {
		x.name = text[found[2]:found[3]]
		x.message = strings.TrimSpace(strings.TrimPrefix(text[found[3]:], ":"))
	}
	return x
}

// is reports whether the exception has one of these names, whatever the module.
func (x exception) is(names ...string) bool {
	name := x.name[strings.LastIndexByte(x.name, '.')+1:]
	for _, one := range names {
		if name == one {
			return true
		}
	}
	return false
}
