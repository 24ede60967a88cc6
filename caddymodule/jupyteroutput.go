package caddymodule

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// driverSource runs a cell and shows what a notebook would; it says how it frames that.
//
//go:embed jupyter/driver.py
var driverSource string

// driverLiteral is driverSource as a Python literal: Go's escapes are Python's, too.
var driverLiteral = strconv.QuoteToASCII(driverSource)

// driverFor is the program that runs a cell. mark names its records, and limit is in characters.
func driverFor(mark string, limit int) string {
	return fmt.Sprintf("exec(compile(%s, '<cell>', 'exec'), {'__name__': '<cell>', '__file__': '<cell>', 'mark': b'%s', 'limit': %d})",
		driverLiteral, mark, limit)
}

// Bounds of what one execution shows besides text.
const (
	maxRecords     = 64
	maxRecordBytes = 8 << 20 // of all, in base64
)

// cellMIMETypes is the closed set of what can be shown.
var cellMIMETypes = []string{"text/plain", "image/png", "image/jpeg", "image/svg+xml", "text/html", "text/markdown", "text/latex"}

// cellOutput takes the records out of a cell's standard output and shows both, in their order. The text is cut as that of
// every execution: its first half is shown as it comes, the rest at the end. What is in a record is what the cell says, and
// is checked. Not safe for concurrent use.
type cellOutput struct {
	begin []byte
	text  textCutter
	show  func(kind string, content any)

	pending  []byte // the beginning of a mark, or of a record
	seen     int    // how much of pending has no end of a record
	inRecord bool
	skipping bool // the record is too large
	records  int
	bytes    int
	left     int // records that were left out
	// failure is the exception that ended the cell, nil for none.
	failure *cellFailure
}

// cellFailure is the content of an error message.
type cellFailure struct {
	Name      string   `json:"ename"`
	Value     string   `json:"evalue"`
	Traceback []string `json:"traceback"`
}

// cellBundle is a value in each form that it has.
type cellBundle struct {
	Data           map[string]string `json:"data"`
	Metadata       struct{}          `json:"metadata"`
	Transient      *struct{}         `json:"transient,omitempty"`
	ExecutionCount int               `json:"execution_count,omitempty"`
}

// streamText is the content of a stream message.
type streamText struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

func newCellOutput(mark string, limit int, show func(kind string, content any)) *cellOutput {
	o := &cellOutput{begin: []byte("\x1e" + mark), show: show}
	o.text = textCutter{limit: limit, show: func(text string) { o.showText("stdout", text) }}
	return o
}

// maxStream keeps a message small enough for clients that bound it.
const maxStream = 64 << 10

func (o *cellOutput) showText(name, text string) {
	for len(text) > 0 {
		n := min(len(text), maxStream)
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n--
		}
		o.show("stream", streamText{name, text[:n]})
		text = text[n:]
	}
}

// write takes the next bytes of standard output.
func (o *cellOutput) write(p []byte) {
	o.pending = append(o.pending, p...)
	for {
		if !o.inRecord {
			at := bytes.Index(o.pending, o.begin)
			if at < 0 {
				keep := len(o.pending) - markPrefix(o.pending, o.begin)
				o.text.write(o.pending[:keep])
				o.pending = slices.Delete(o.pending, 0, keep)
				return
			}
			o.text.write(o.pending[:at])
			o.text.flush()
			o.pending = slices.Delete(o.pending, 0, at+len(o.begin))
			o.inRecord = true
		}
		end := bytes.IndexByte(o.pending[o.seen:], 0x1e)
		if end < 0 {
			if len(o.pending) > maxRecordBytes {
				o.skipping, o.pending = true, o.pending[:0]
			}
			o.seen = len(o.pending)
			return
		}
		end += o.seen
		o.seen = 0
		if o.skipping {
			o.left++
		} else {
			o.record(string(o.pending[:end]))
		}
		o.inRecord, o.skipping = false, false
		o.pending = slices.Delete(o.pending, 0, end+1)
	}
}

// markPrefix is the length of the longest end of p that may be the beginning of mark.
func markPrefix(p, mark []byte) int {
	for n := min(len(p), len(mark)-1); n > 0; n-- {
		if bytes.HasSuffix(p, mark[:n]) {
			return n
		}
	}
	return 0
}

// record shows what one record holds.
func (o *cellOutput) record(text string) {
	o.records++
	o.bytes += len(text)
	var fields []string
	for encoded := range strings.FieldsSeq(text) {
		field, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			fields = nil
			break
		}
		fields = append(fields, string(field))
	}
	switch {
	case len(fields) == 4 && fields[0] == "error":
		o.failure = &cellFailure{
			Name:      cutText(toUTF8(fields[1]), 200),
			Value:     cutText(toUTF8(fields[2]), o.text.limit),
			Traceback: strings.Split(cutText(toUTF8(fields[3]), o.text.limit), "\n"),
		}
	case o.records > maxRecords || o.bytes > maxRecordBytes:
		o.left++
	case len(fields) > 2 && len(fields)%2 == 1 && (fields[0] == "display" || fields[0] == "result"):
		bundle := cellBundle{Data: map[string]string{}}
		for i := 1; i < len(fields); i += 2 {
			mime, data := fields[i], fields[i+1]
			switch {
			case !slices.Contains(cellMIMETypes, mime):
				continue
			case mime == "image/png" || mime == "image/jpeg":
				data = base64.StdEncoding.EncodeToString([]byte(data))
			case mime == "text/plain":
				data = cutText(toUTF8(data), o.text.limit)
			default:
				data = toUTF8(data)
			}
			bundle.Data[mime] = data
		}
		if fields[0] == "result" {
			o.show("execute_result", bundle)
		} else {
			bundle.Transient = new(struct{})
			o.show("display_data", bundle)
		}
	default:
		o.left++ // another process wrote in between, or the cell made it up
	}
}

// finish shows what is left, with the standard error.
func (o *cellOutput) finish(stderr string) {
	if !o.inRecord {
		o.text.write(o.pending)
	} else if len(o.pending) > 0 || o.skipping {
		o.left++
	}
	o.pending = nil
	o.text.finish()
	if o.left > 0 {
		stderr += fmt.Sprintf("[%d things to show were left out: they were damaged, or more than %d or %d MiB in all]\n", o.left, maxRecords, maxRecordBytes>>20)
	}
	o.showText("stderr", stderr)
}

// textCutter shows the first half of limit characters line by line as they come, and the last half, with a line about what
// is left out between, at the end.
type textCutter struct {
	limit int
	show  func(string)
	heads int    // characters of the first half so far
	line  []byte // of the first half, not shown yet
	rest  []byte // what may be the last half
	chars int    // in all that went to rest
	carry []byte // an incomplete character
}

func (c *textCutter) write(p []byte) {
	if len(c.carry) > 0 {
		p = append(c.carry, p...)
		c.carry = nil
	}
	for back := 1; back < utf8.UTFMax && back <= len(p); back++ {
		if tail := p[len(p)-back:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				c.carry, p = slices.Clone(tail), p[:len(p)-back]
			}
			break
		}
	}
	c.take(p)
}

func (c *textCutter) take(p []byte) {
	n := 0
	for n < len(p) && c.heads < c.limit/2 {
		_, size := utf8.DecodeRune(p[n:])
		n += size
		c.heads++
	}
	if n > 0 {
		// Programs write lines in pieces, which would be messages each.
		c.line = append(c.line, p[:n]...)
		p = p[n:]
		if end := bytes.LastIndexByte(c.line, '\n') + 1; end > 0 {
			c.show(toUTF8(string(c.line[:end])))
			c.line = append(c.line[:0], c.line[end:]...)
		}
	}
	c.chars += utf8.RuneCount(p)
	c.rest = append(c.rest, p...)
	if room := c.lastHalf() * utf8.UTFMax; len(c.rest) > 2*room+maxStream {
		c.rest = append([]byte(nil), c.rest[len(c.rest)-room:]...)
	}
}

// flush shows what is of no whole line yet.
func (c *textCutter) flush() {
	if len(c.line) > 0 {
		c.show(toUTF8(string(c.line)))
		c.line = c.line[:0]
	}
}

func (c *textCutter) lastHalf() int { return c.limit - c.limit/2 }

func (c *textCutter) finish() {
	c.take(c.carry)
	c.carry = nil
	if len(c.rest) > 0 && c.chars <= c.lastHalf() {
		c.line, c.rest = append(c.line, c.rest...), nil
	}
	c.flush()
	if len(c.rest) == 0 {
		return
	}
	at := len(c.rest)
	for range c.lastHalf() {
		_, size := utf8.DecodeLastRune(c.rest[:at])
		at -= size
	}
	c.show(cutLine(c.chars-c.lastHalf()) + toUTF8(string(c.rest[at:])))
}

// cutLine stands where characters were left out, as the pool has it.
func cutLine(left int) string { return fmt.Sprintf("\n[... %d characters left out ...]\n", left) }

// cutText leaves the middle of a text out. The driver has done so already, so some room is left for its line.
func cutText(text string, limit int) string {
	runes := []rune(text)
	if len(runes) <= limit+len(cutLine(1<<31)) {
		return text
	}
	first := limit / 2
	return string(runes[:first]) + cutLine(len(runes)-limit) + string(runes[len(runes)-(limit-first):])
}

// toUTF8 puts U+FFFD for each byte that is none.
func toUTF8(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string([]rune(text))
}
