package pool

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCaptureKeepsHeadAndTail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in, want string
		limit          int
	}{
		{"empty", "", "", 4},
		{"exactly the limit", "abcd", "abcd", 4},
		{"one more", "abcde", "ab\n[... 1 characters left out ...]\nde", 4},
		{"odd limit", "abcdefgh", "ab\n[... 3 characters left out ...]\nfgh", 5},
		{"characters, not bytes", "ééééé", "éé\n[... 1 characters left out ...]\néé", 4},
		{"bad bytes count one each", "\xff\xfe", "\uFFFD\uFFFD", 4},
		{"cut character at the end", "ab\xe2\x82", "ab\uFFFD\uFFFD", 4},
		{"bad bytes in the tail", "abc\xff\xffde", "ab\n[... 3 characters left out ...]\nde", 4},
	} {
		for _, step := range []int{1, 2, 3, 1 << 20} {
			got, cut := captured(c.limit, c.in, step)
			if got != c.want || cut != (got != strings.ToValidUTF8(c.in, "\uFFFD") && strings.Contains(got, "left out")) {
				t.Errorf("%s, %d bytes at a time: got %q, %v, want %q", c.name, step, got, cut, c.want)
			}
		}
	}
}

func captured(limit int, in string, step int) (string, bool) {
	c := newCapture(limit)
	for len(in) > 0 {
		n := min(step, len(in))
		c.write([]byte(in[:n]))
		in = in[n:]
	}
	return c.text()
}

// model returns what a capture should keep: it decodes the whole input and then cuts it.
func model(limit int, in string) string {
	all := []rune(in)
	if len(all) <= limit {
		return string(all)
	}
	return fmt.Sprintf("%s\n[... %d characters left out ...]\n%s", string(all[:limit/2]), len(all)-limit, string(all[len(all)-(limit-limit/2):]))
}

func FuzzCapture(f *testing.F) {
	f.Add("abc\xff€\xe2\x82", 3, 2)
	f.Add(strings.Repeat("x€", 100), 7, 5)
	f.Fuzz(func(t *testing.T, in string, limit, step int) {
		if limit < 2 || limit > 1000 || step < 1 {
			t.Skip("outside the bounds that Normalize allows")
		}
		got, _ := captured(limit, in, step)
		if want := model(limit, in); got != want {
			t.Errorf("limit %d, %d bytes at a time, %q: got %q, want %q", limit, step, in, got, want)
		}
		if !utf8.ValidString(got) {
			t.Errorf("%q is not UTF-8", got)
		}
	})
}

func TestCaptureEqualsItsModel(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "é", "€", "😀", "\xff", "\xe2", "\x80", "\n"}
	for range 3000 {
		var in strings.Builder
		for range random.IntN(60) {
			in.WriteString(alphabet[random.IntN(len(alphabet))])
		}
		limit, step := 2+random.IntN(20), 1+random.IntN(9)
		if got, _ := captured(limit, in.String(), step); got != model(limit, in.String()) {
			t.Fatalf("limit %d, step %d, %q: got %q, want %q", limit, step, in.String(), got, model(limit, in.String()))
		}
	}
}

func TestCaptureIsBounded(t *testing.T) {
	t.Parallel()
	c := newCapture(1000)
	chunk := []byte(strings.Repeat("x", 1<<16))
	for range 1 << 10 {
		c.write(chunk)
	}
	if held := cap(c.head) + cap(c.ring); held > 64<<10 {
		t.Errorf("holds %d bytes of 64 MiB", held)
	}
	if text, cut := c.text(); !cut || len(text) > 1100 {
		t.Errorf("got %d characters, cut %v", len(text), cut)
	}
}
