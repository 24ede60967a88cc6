package jupyter

import (
	"strings"
	"testing"
)

func TestTextCutter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"short", "abc", "abc"},
		{"as long as may be", "äbcdefghiß", "äbcdefghiß"},
		{"one more", "äbcdefghijß", "äbcde\n[... 1 characters left out ...]\nghijß"},
		{"much more", "ä\nbcd" + strings.Repeat("x", 200_000) + "y\n\u20acz!", "ä\nbcd\n[... 200000 characters left out ...]\ny\n\u20acz!"},
		{"no UTF-8", "a\xffb\xe2\x82", "a\ufffdb\ufffd\ufffd"},
	} {
		for _, piece := range []int{1, 2, 3, 1000, 1 << 20} {
			var got strings.Builder
			cut := textCutter{limit: 10, show: func(text string) { got.WriteString(text) }}
			for range 2 { // finish resets the cutter
				got.Reset()
				for rest := []byte(c.text); len(rest) > 0; {
					n := min(piece, len(rest))
					cut.write(rest[:n])
					rest = rest[n:]
				}
				cut.finish()
				if got.String() != c.want {
					t.Errorf("%s in pieces of %d: got %q, want %q", c.name, piece, got.String(), c.want)
				}
			}
		}
	}
}
