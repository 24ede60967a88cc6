// Package pep440 compares versions of Python packages and matches them with specifiers (PEP 440). Its reference is Python's
// packaging library, which pip uses: testdata/pep440.txt has the results of that library for more than a thousand pairs of a
// specifier and a version.
package pep440

import (
	"cmp"
	"regexp"
	"strings"

	pep440 "github.com/aquasecurity/go-pep440-version"
)

var localSeparator = regexp.MustCompile(`[-_.]`)

// parse parses a PEP 440 version. It normalises the local part first, which go-pep440-version would keep as it is written.
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

// Equal reports whether two texts are spellings of one version. Two texts that are not PEP 440 are equal when they differ only in
// case and separators.
func Equal(a, b string) bool {
	left, leftErr := parse(a)
	right, rightErr := parse(b)
	if leftErr != nil || rightErr != nil {
		return leftErr != nil && rightErr != nil && strings.EqualFold(plain(a), plain(b))
	}
	return left.Compare(right) == 0
}

// plain returns s with "." for each separator, and without white space around it.
func plain(s string) string { return localSeparator.ReplaceAllString(strings.TrimSpace(s), ".") }
