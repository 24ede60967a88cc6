package jupyter

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
)

// The driver frames a record as jupyter/driver.py says. No legal record holds either byte.
const (
	recordBegin = 0x1e
	recordEnd   = 0x1d
)

// maxRecordBytes bounds all records of a cell together, in base64.
const maxRecordBytes = 8 << 20

// cellStream takes the records out of one of a cell's streams. Not safe for concurrent use.
type cellStream struct {
	begin []byte // of a record
	text  textCutter
	// record gets the fields of each record; nil for one that is damaged or too large.
	record func(fields []string, bytes int)

	pending  []byte // the beginning of a mark, or of a record
	seen     int    // how much of pending has no end of a record
	inRecord bool
	skipping bool        // the record is too large
	bytes    int         // of all that came
	before   *cellStream // of the last cell, which is in the middle of a record; nil when it is not
}

func newCellStream(mark string, limit int, show func(text string), record func(fields []string, bytes int)) *cellStream {
	return &cellStream{begin: append([]byte{recordBegin}, mark...), text: textCutter{limit: limit, show: show}, record: record}
}

// write takes the next bytes.
func (s *cellStream) write(p []byte) {
	if s.before != nil {
		p = s.before.complete(p)
		if s.before.inRecord || s.before.before != nil {
			return
		}
		s.before = nil
	}
	s.bytes += len(p)
	s.pending = append(s.pending, p...)
	for {
		if !s.inRecord {
			at := bytes.Index(s.pending, s.begin)
			if at < 0 {
				keep := len(s.pending) - markPrefix(s.pending, s.begin)
				s.text.write(s.pending[:keep])
				s.pending = slices.Delete(s.pending, 0, keep)
				return
			}
			s.text.write(s.pending[:at])
			s.text.flush()
			s.pending = slices.Delete(s.pending, 0, at+len(s.begin))
			s.inRecord = true
		}
		end := bytes.IndexAny(s.pending[s.seen:], string([]byte{recordBegin, recordEnd}))
		if end < 0 {
			if len(s.pending) > maxRecordBytes {
				s.skipping, s.pending = true, s.pending[:0]
			}
			s.seen = len(s.pending)
			return
		}
		end += s.seen
		whole, after := s.pending[end] == recordEnd, end
		if whole {
			after++
		} // else an interrupt came while it was written, and what begins here may be the next
		if whole && !s.skipping {
			s.record(recordFields(string(s.pending[:end])), end)
		} else {
			s.record(nil, end)
		}
		s.seen, s.inRecord, s.skipping = 0, false, false
		s.pending = slices.Delete(s.pending, 0, after)
	}
}

// complete takes the rest of an open record and returns what follows it.
func (s *cellStream) complete(p []byte) []byte {
	end := bytes.IndexAny(p, string([]byte{recordBegin, recordEnd}))
	switch {
	case end < 0:
		end = len(p)
	case p[end] == recordEnd:
		end++
	default:
		defer s.finish() // it is damaged
	}
	s.write(p[:end])
	return p[end:]
}

// follow makes s the stream that is heard after last: a record that last is in the middle of, of a thread, is still its own.
func (s *cellStream) follow(last *cellStream) {
	if last.inRecord || last.before != nil {
		s.before = last
		last.settle()
	} else {
		last.finish()
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

// recordFields decodes a record, whose fields may be empty; nil when it is damaged.
func recordFields(text string) (fields []string) {
	text, found := strings.CutPrefix(text, " ")
	if !found {
		return nil
	}
	for encoded := range strings.SplitSeq(text, " ") {
		field, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil
		}
		fields = append(fields, string(field))
	}
	return fields
}

// settle shows all text that is held back, at a point where no record is open but one that has come since. What comes later is
// shown as if it were the beginning.
func (s *cellStream) settle() { s.text.finish() }

// finish is settle for when no more will come, and what is open stays so.
func (s *cellStream) finish() {
	if s.before != nil {
		s.before.finish()
		s.before = nil
	}
	if !s.inRecord {
		s.text.write(s.pending)
	} else if len(s.pending) > 0 || s.skipping {
		s.record(nil, len(s.pending))
	}
	s.pending, s.seen, s.inRecord, s.skipping = nil, 0, false, false
	s.settle()
}
