// Package pep440 reads, orders and matches versions of Python packages (PEP 440). Its reference is Python's packaging library,
// which pip uses: testdata/pep440.txt is what that says of a thousand pairs.
package pep440

import (
	"cmp"
	"regexp"
	"strings"

	pep440 "github.com/aquasecurity/go-pep440-version"
)

var localSeparator = regexp.MustCompile(`[-_.]`)

// parse parses a PEP 440 version. The library keeps a local part as it is written, so that is normalised before.
func parse(s string) (pep440.Version, error) {
	public, local, found := strings.Cut(s, "+")
	if found {
		parts := localSeparator.Split(local, -1)
		for i, part := range parts {
			if part != "" && strings.Trim(part, "0123456789") == "" {
				parts[i] = cmp.Or(strings.TrimLeft(part, "0"), "0")
			}
		}
		s = public + "+" + strings.Join(parts, ".")
	}
	return pep440.Parse(s) //nolint:wrapcheck // it names the version
}

// Equal reports whether two texts are spellings of one version. What is not PEP 440 is equal to the same letters only, in
// upper or lower case and with any separators.
func Equal(a, b string) bool {
	left, leftErr := parse(a)
	right, rightErr := parse(b)
	if leftErr != nil || rightErr != nil {
		return leftErr != nil && rightErr != nil && strings.EqualFold(plain(a), plain(b))
	}
	return left.Compare(right) == 0
}

// plain writes separators as ".".
func plain(s string) string { return localSeparator.ReplaceAllString(strings.TrimSpace(s), ".") }
