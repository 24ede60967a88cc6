package policy

import (
	"slices"
	"strings"
)

// compact returns a canonical name without separators, which people often forget, add or misplace.
func compact(name string) string { return strings.ReplaceAll(name, "-", "") }

// lookAlikes replaces characters that many fonts hardly distinguish by one of them, and removes separators.
var lookAlikes = strings.NewReplacer("-", "", "rn", "m", "vv", "w", "0", "o", "1", "l", "i", "l")

func shapeOf(name string) string { return lookAlikes.Replace(name) }

// sortWords makes "dateutil-python" and "python-dateutil" equal.
func sortWords(name string) string {
	words := strings.Split(name, "-")
	slices.Sort(words)
	return strings.Join(words, "-")
}

// oneWordDiffers returns the word of target that differs from the word at the same place in name, and true if it is the only one
// that differs.
func oneWordDiffers(name, target string) (string, bool) {
	have, want := strings.Split(name, "-"), strings.Split(target, "-")
	if len(have) != len(want) || len(want) == 1 {
		return "", false
	}
	word, differing := "", 0
	for i := range want {
		if have[i] != want[i] {
			word = want[i]
			differing++
		}
	}
	return word, differing == 1
}

var (
	prefixes      = []string{"python-", "python3-", "python2-", "py-", "py3-"}
	suffixes      = []string{"-python", "-python3", "-python2", "-py", "-py3", "-lib"}
	gluedPrefixes = []string{"python3", "python", "py3", "py"}
	gluedSuffixes = []string{"python3", "python", "py3", "py", "lib"}
)

// withoutAffix returns, for each affix that a name has, the name without it.
func withoutAffix(name string) []string { return cut(name, prefixes, suffixes) }

// withoutGluedAffix is withoutAffix for affixes without a separator, as in "pyflask".
func withoutGluedAffix(name string) []string { return cut(name, gluedPrefixes, gluedSuffixes) }

func cut(name string, prefixes, suffixes []string) []string {
	var bases []string
	for _, prefix := range prefixes {
		if base, found := strings.CutPrefix(name, prefix); found {
			bases = append(bases, strings.Trim(base, "-"))
		}
	}
	for _, suffix := range suffixes {
		if base, found := strings.CutSuffix(name, suffix); found {
			bases = append(bases, strings.Trim(base, "-"))
		}
	}
	return bases
}

// withoutVersion returns a name without the digit, or "v" and digit, at its end: "requests" for "requests3" and "requests-v2". It
// returns none for other names: two or more digits are seldom a version of Python or of a package.
func withoutVersion(name string) []string {
	last := len(name) - 1
	if last < 1 || !isDigit(name[last]) || isDigit(name[last-1]) {
		return nil
	}
	base := name[:last]
	return []string{strings.TrimSuffix(strings.TrimSuffix(base, "-v"), "-")}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isVowel(c byte) bool { return c != 0 && strings.IndexByte("aeiouy", c) >= 0 }

// keyRows are a QWERTY keyboard, each row half a key to the right of the one above.
var keyRows = []string{"1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"}

// isNeighbour reports whether the keys of two characters are next to each other.
func isNeighbour(a, b byte) bool {
	aRow, aColumn := keyAt(a)
	bRow, bColumn := keyAt(b)
	if aRow < 0 || bRow < 0 {
		return false
	}
	if aRow > bRow {
		aRow, aColumn, bRow, bColumn = bRow, bColumn, aRow, aColumn
	}
	switch bRow - aRow {
	case 0:
		return aColumn-bColumn == 1 || bColumn-aColumn == 1
	case 1:
		return bColumn == aColumn || bColumn == aColumn-1
	}
	return false
}

func keyAt(c byte) (row, column int) {
	for row, keys := range keyRows {
		if column := strings.IndexByte(keys, c); column >= 0 {
			return row, column
		}
	}
	return -1, -1
}
