package pool

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// capture keeps the beginning and the end of a stream, in characters. The zero value is not usable: see newCapture.
// Not safe for concurrent use.
type capture struct {
	limit    int // characters
	head     []byte
	heads    int // characters in head
	ring     []byte
	start    int // of the oldest byte in ring, once it is full
	chars    int64
	bytes    int64
	carry    []byte       // an incomplete character at the end of the last write
	onOutput func([]byte) // is called with all bytes of the stream as they come; may be nil
}

func newCapture(limit int) *capture { return &capture{limit: limit} }

// write takes the next bytes of the stream. A byte that is not UTF-8 counts as one character.
func (c *capture) write(p []byte) {
	c.bytes += int64(len(p))
	if c.onOutput != nil && len(p) > 0 {
		c.onOutput(p)
	}
	if len(c.carry) > 0 {
		p = append(c.carry, p...)
		c.carry = nil
	}
	// Bytes that may be the beginning of a character are kept until the next write.
	for back := 1; back < utf8.UTFMax && back <= len(p); back++ {
		if b := p[len(p)-back]; utf8.RuneStart(b) {
			if b >= utf8.RuneSelf && !utf8.FullRune(p[len(p)-back:]) {
				c.carry = append([]byte(nil), p[len(p)-back:]...)
				p = p[:len(p)-back]
			}
			break
		}
	}
	c.take(p)
}

func (c *capture) take(p []byte) {
	c.chars += int64(utf8.RuneCount(p))
	for c.heads < c.limit && len(p) > 0 {
		_, size := utf8.DecodeRune(p)
		c.head = append(c.head, p[:size]...)
		c.heads++
		p = p[size:]
	}
	// The last half of limit characters is at most this many bytes.
	room := (c.limit + 1) / 2 * utf8.UTFMax
	if len(p) >= room {
		c.ring, c.start = append(c.ring[:0], p[len(p)-room:]...), 0
		return
	}
	if free := room - len(c.ring); free > 0 {
		n := min(free, len(p))
		c.ring = append(c.ring, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 {
		n := copy(c.ring[c.start:], p)
		c.start = (c.start + n) % len(c.ring)
		p = p[n:]
	}
}

// text returns what was kept, and whether something was left out. Call it once, at the end.
func (c *capture) text() (string, bool) {
	if len(c.carry) > 0 {
		c.take(c.carry)
		c.carry = nil
	}
	if c.chars <= int64(c.limit) {
		return toText(c.head), false
	}
	rest := append(append([]byte(nil), c.ring[c.start:]...), c.ring[:c.start]...)
	first, last := c.limit/2, c.limit-c.limit/2
	head := c.head
	for i, n := 0, 0; i < len(head); n++ {
		if n == first {
			rest = append(head[i:len(head):len(head)], rest...)
			head = head[:i]
			break
		}
		_, size := utf8.DecodeRune(head[i:])
		i += size
	}
	at := len(rest)
	for range last {
		_, size := utf8.DecodeLastRune(rest[:at])
		at -= size
	}
	var b strings.Builder
	b.WriteString(toText(head))
	fmt.Fprintf(&b, "\n[... %d characters left out ...]\n", c.chars-int64(c.limit))
	b.WriteString(toText(rest[at:]))
	return b.String(), true
}

// toText decodes as UTF-8, one U+FFFD for each byte that is not.
func toText(p []byte) string {
	if utf8.Valid(p) {
		return string(p)
	}
	return string([]rune(string(p)))
}
