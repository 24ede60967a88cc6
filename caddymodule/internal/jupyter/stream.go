package jupyter

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
)

// The bytes around a record; the docstring of driver.py describes it. Neither occurs within one.
const (
	recordBegin = 0x1e
	recordEnd   = 0x1d
)

// maxRecordBytes bounds all records of a cell together, in base64.
const maxRecordBytes = 8 << 20

// cellStream separates the records in one of a cell's streams from the text. Not safe for concurrent use.
type cellStream struct {
	begin []byte // begins each record: recordBegin and the cell's mark
	text  textCutter
	// record is called with the fields of each record, nil when it is damaged or too large.
	record func(fields []string, bytes int)

	pending  []byte // in a record: its bytes so far; else bytes that may be the beginning of begin
	seen     int    // bytes of pending that have been searched for the end of the record
	inRecord bool
	skipping bool        // the record is too large, and its bytes are dropped
	bytes    int         // of all that was written
	before   *cellStream // the last cell's stream while it is in the middle of a record, else nil
}

func newCellStream(mark string, limit int, show func(text string), record func(fields []string, bytes int)) *cellStream {
	return &cellStream{begin: append([]byte{recordBegin}, mark...), text: textCutter{limit: limit, show: show}, record: record}
}

// write takes the next bytes of the stream.
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
		} // else an interrupt came while the driver wrote it, and the next record may begin here
		if whole && !s.skipping {
			s.record(recordFields(string(s.pending[:end])), end)
		} else {
			s.record(nil, end)
		}
		s.seen, s.inRecord, s.skipping = 0, false, false
		s.pending = slices.Delete(s.pending, 0, after)
	}
}

// complete takes the rest of the record that s is in the middle of, and returns the bytes after it.
func (s *cellStream) complete(p []byte) []byte {
	end := bytes.IndexAny(p, string([]byte{recordBegin, recordEnd}))
	switch {
	case end < 0:
		end = len(p)
	case p[end] == recordEnd:
		end++
	default:
		defer s.finish() // the record is damaged
	}
	s.write(p[:end])
	return p[end:]
}

// follow makes s the stream of the next cell after last. If last is in the middle of a record, which a thread of its cell writes, the
// rest of that record still goes to last.
func (s *cellStream) follow(last *cellStream) {
	if last.inRecord || last.before != nil {
		s.before = last
		last.settle()
	} else {
		last.finish()
	}
}

// markPrefix returns the length of the longest suffix of p that is a proper prefix of mark.
func markPrefix(p, mark []byte) int {
	for n := min(len(p), len(mark)-1); n > 0; n-- {
		if bytes.HasSuffix(p, mark[:n]) {
			return n
		}
	}
	return 0
}

// recordFields decodes the fields of a record, which may be empty. It returns nil when the record is damaged.
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

// settle shows the text that is held back, at the end of a cell. Text that comes later is cut anew, as if the stream began there. A
// record that is incomplete stays open.
func (s *cellStream) settle() { s.text.finish() }

// finish is settle for when no more will come: an incomplete record counts as damaged, and the beginning of a mark is shown as text.
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
