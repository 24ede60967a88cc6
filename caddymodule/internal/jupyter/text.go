package jupyter

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"
)

// textCutter shows the first half of limit characters line by line as they come, and the last half, with a line about what
// is left out between, at the end. After its end it is as new.
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
	defer func() { *c = textCutter{limit: c.limit, show: c.show} }()
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
