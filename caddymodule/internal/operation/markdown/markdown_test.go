package markdown

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"none", "print(1)\n", nil},
		{"a word", "```python\nprint(1)\n```", []string{"\nprint(1)\n"}},
		{"no word", "```\nprint(1)\n```\n", []string{"\nprint(1)\n"}},
		{"tildes", "~~~py\nprint(1)\n~~~", []string{"\nprint(1)\n"}},
		{"attributes", "``` {.python .numberLines}\nprint(1)\n```", []string{"\nprint(1)\n"}},
		{"text around", "Here it is:\n\n```python\nprint(1)\n```\n\nIt prints 1.\n", []string{"\n\n\nprint(1)\n"}},
		{"never closed", "```python\nprint(1)\nprint(2)", []string{"\nprint(1)\nprint(2)"}},
		{"closed in vain", "print(1)\n```", nil},
		{"Windows' line ends", "```python\r\nprint(1)\r\n```\r\n", []string{"\nprint(1)\r\n"}},
		{"two of Python", "```python\na = 1\n```\nand\n```python\nprint(a)\n```", []string{"\na = 1\n\n\n\nprint(a)\n", "\na = 1\n```\nand\n```python\nprint(a)\n"}},
		{"what it prints", "```python\nprint(1)\n```\nOutput:\n```\n1\n```", []string{"\nprint(1)\n", "\nprint(1)\n```\nOutput:\n```\n1\n"}},
		{"another language first", "```bash\npip install x\n```\n```python\nprint(1)\n```", []string{"\n\n\n\nprint(1)\n"}},
		{"another language only", "```bash\nls\n```", nil},
		{"longer fences", "````python\ns = '''\n```\n'''\n````", []string{"\ns = '''\n```\n'''\n"}},
		{"fences in a string", "```python\ns = '''\n```\nx\n```\n'''\n```", []string{"\ns = '''\n", "\ns = '''\n```\nx\n```\n'''\n"}},
		{"in a list", "1. Run\n   ```python\n   if True:\n       print(1)\n   ```", []string{"\n\nif True:\n    print(1)\n"}},
		{"one line", "```print(1)```", []string{"print(1)"}},
		{"one line, a word", "```python print(1)```", []string{"print(1)"}},
		{"a code span", "`print(1)`", []string{"print(1)"}},
		{"nothing inside", "```python\n```", nil},
	} {
		got := Programs(c.text)
		if len(got) == 0 && len(c.want) == 0 {
			continue
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// A text of the largest size is read in little time, whatever it holds.
func TestProgramsTakeLinearTime(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"```\n", "```python\n", "~~~\n```\n", "`", "```x", "````````\n"} {
		took := func(size int) time.Duration {
			text := strings.Repeat(line, size/len(line))
			best := time.Hour
			for range 5 {
				begin := time.Now()
				Programs(text)
				best = min(best, time.Since(begin))
			}
			return best
		}
		small, large := took(1<<16), took(1<<20)
		if large > 100*max(small, 100*time.Microsecond) {
			t.Errorf("%q: %s for 64 KiB, %s for 1 MiB", line, small, large)
		}
	}
}
