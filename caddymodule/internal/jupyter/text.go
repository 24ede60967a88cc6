package jupyter

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"
)

// textCutter shows at most limit characters of a text: the first half line by line as it comes, and the last half in finish, after a
// line that says how many characters are left out between. After finish it can be used for another text. Not safe for concurrent use.
type textCutter struct {
	limit int
	show  func(string)
	heads int    // characters of the first half so far
	line  []byte // the incomplete line of the first half, not shown yet
	rest  []byte // the end of the text after the first half, at least as long as the last half if there is as much
	chars int    // all characters after the first half
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
		// Only whole lines are shown: programs write a line in several pieces, and each would become a message.
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

// flush shows the incomplete line of the first half.
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

// cutLine is the line that stands for the characters that are left out; the pool uses the same.
func cutLine(left int) string { return fmt.Sprintf("\n[... %d characters left out ...]\n", left) }

// cutText cuts the middle out of a text of more than limit characters. A text that the driver has cut already is longer than limit by
// its line about that, and is left as it is.
func cutText(text string, limit int) string {
	runes := []rune(text)
	if len(runes) <= limit+len(cutLine(1<<31)) {
		return text
	}
	first := limit / 2
	return string(runes[:first]) + cutLine(len(runes)-limit) + string(runes[len(runes)-(limit-first):])
}

// toUTF8 replaces each byte that is not part of valid UTF-8 with U+FFFD.
func toUTF8(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string([]rune(text))
}
