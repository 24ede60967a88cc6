package jupyter

import (
	"fmt"
	"strings"
	"testing"
)

func TestCellStream(t *testing.T) {
	t.Parallel()
	const mark = "0123"
	for _, c := range []struct{ name, written, want string }{
		{"text only", "a\x1eb\x1dc\x1e", "text a\x1eb\x1dc\x1e;"},
		{"a record between", "a\x1e0123 YQ==\x1db", "text a;[a];text b;"},
		{"one after another", "\x1e0123 YQ== Yg==\x1d\x1e0123 Yw==\x1d", "[a b];[c];"},
		{"empty fields", "\x1e0123  YQ== \x1d", "[ a ];"},
		{"another mark", "\x1e0124 YQ==\x1d", "text \x1e0124 YQ==\x1d;"},
		{"the mark without its begin", "0123 YQ==\x1d", "text 0123 YQ==\x1d;"},
		{"an interrupted one", "\x1e0123 YQ=\x1e0123 Yg==\x1d", "damaged;[b];"},
		{"what another process wrote in between", "\x1e0123 YQ\x1e=\x1dx", "damaged;text \x1e=\x1dx;"},
		{"no base64", "\x1e0123 !\x1dx", "damaged;text x;"},
		{"nothing in it", "\x1e0123\x1d", "damaged;"},
		{"no end", "a\x1e0123 YQ==", "text a;damaged;"},
		{"half a mark", "a\x1e012", "text a\x1e012;"},
	} {
		for _, piece := range []int{1, 2, 3, 1000} {
			var got strings.Builder
			text := ""
			say := func(words string) {
				if text != "" {
					fmt.Fprintf(&got, "text %s;", text)
					text = ""
				}
				got.WriteString(words)
			}
			s := newCellStream(mark, 1000, func(part string) { text += part }, func(fields []string, _ int) {
				if fields == nil {
					say("damaged;")
				} else {
					say("[" + strings.Join(fields, " ") + "];")
				}
			})
			for range 2 { // output may come after finish, and finish again after that
				got.Reset()
				for rest := c.written; rest != ""; {
					n := min(piece, len(rest))
					s.write([]byte(rest[:n]))
					rest = rest[n:]
				}
				s.finish()
				say("")
				if got.String() != c.want {
					t.Errorf("%s in pieces of %d: got %q, want %q", c.name, piece, got.String(), c.want)
				}
			}
			if s.bytes != 2*len(c.written) {
				t.Errorf("%s: %d bytes are counted", c.name, s.bytes)
			}
		}
	}
}

// A thread may be in the middle of a record when the next cell begins.
func TestCellStreamFollows(t *testing.T) {
	t.Parallel()
	for rest, want := range map[string]string{
		"g==\x1dtext\x1e4567 Yw==\x1d": "[b] text [c]",
		"g==\x1d":                      "[b]",
		"\x1e4567 Yw==\x1d":            "damaged [c]",
		"":                             "",
	} {
		for _, piece := range []int{1, 2, 1000} {
			var got []string
			record := func(fields []string, _ int) {
				if fields == nil {
					fields = []string{"damaged"}
				} else {
					fields = []string{fmt.Sprint(fields)}
				}
				got = append(got, fields...)
			}
			show := func(text string) { got = append(got, text) }
			last, between, next := newCellStream("0123", 1000, show, record), newCellStream("none", 1000, show, record), newCellStream("4567", 1000, show, record)
			last.write([]byte("\x1e0123 Y"))
			between.follow(last)
			next.follow(between)
			for left := rest; left != ""; {
				n := min(piece, len(left))
				next.write([]byte(left[:n]))
				left = left[n:]
			}
			next.settle()
			if strings.Join(got, " ") != want {
				t.Errorf("%q in pieces of %d: got %q", rest, piece, got)
			}
		}
	}
}

func TestCellStreamSkipsWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	records, damaged := 0, 0
	s := newCellStream("0123", 10, func(string) {}, func(fields []string, _ int) {
		records++
		if fields == nil {
			damaged++
		}
	})
	s.write([]byte("\x1e0123 "))
	for range 3 * maxRecordBytes / (1 << 20) {
		s.write([]byte(strings.Repeat("YQ==", 1<<18)))
	}
	if cap(s.pending) > 3*maxRecordBytes {
		t.Errorf("%d bytes are kept", cap(s.pending))
	}
	s.write([]byte("\x1d\x1e0123 YQ==\x1d"))
	if records != 2 || damaged != 1 {
		t.Errorf("%d records, %d damaged", records, damaged)
	}
}
