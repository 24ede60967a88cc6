package pep440

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	pep440 "github.com/aquasecurity/go-pep440-version"
)

// clause is one comparison of a specifier set. Only the parsing and order of versions are go-pep440-version's. Its specifiers are
// not used: they misread valid ones (upper case, epochs, "==1.0.*" for the version 1) and accept "||" and a missing comma.
type clause struct {
	operator string
	version  pep440.Version // unset for "==="
	prefix   bool           // of "==1.*", which compares the first numbers of the release only
	text     string         // the normalised version as String writes it
}

// Specifier is a set of clauses, all of which a version must match. The zero value matches every version. It may be used
// concurrently.
type Specifier []clause

var (
	clauseShape = regexp.MustCompile(`^(~=|===|==|!=|<=|>=|<|>) *([^ ]+)$`)
	// arbitraryShape matches the text after "===": any without the characters that end a clause in PEP 508.
	arbitraryShape = regexp.MustCompile(`^[A-Za-z0-9._+!*-]+$`)
)

// ParseSpecifier parses a specifier set, or a version, which stands for "==" and that version. The text of an error is the rest of a
// sentence that begins with the name of the field at fault.
func ParseSpecifier(s string) (Specifier, error) {
	if s != "" && !strings.ContainsAny(s, "<>=~^,") && !strings.HasPrefix(s, "!") {
		s = "==" + s
	}
	var set Specifier
	for text := range strings.SplitSeq(s, ",") {
		text = strings.Trim(text, " ")
		if text == "" {
			continue
		}
		c, err := parseClause(text)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(set, func(o clause) bool { return o.operator == c.operator && o.text == c.text }) {
			set = append(set, c)
		}
	}
	if len(set) == 0 {
		return nil, malformed(s)
	}
	return set, nil
}

func parseClause(s string) (clause, error) {
	if rest, found := strings.CutPrefix(s, "^"); found {
		return clause{}, fmt.Errorf(
			`must be a PEP 440 specifier, and "^" is none: write "~=" or a range such as ">=2,<3" in place of %s`, quote("^"+rest))
	}
	if strings.HasPrefix(s, "=") && !strings.HasPrefix(s, "==") {
		return clause{}, fmt.Errorf(`must be a PEP 440 specifier, and "=" is none: write "==" in place of it in %s`, quote(s))
	}
	parts := clauseShape.FindStringSubmatch(s)
	if parts == nil {
		return clause{}, malformed(s)
	}
	c := clause{operator: parts[1], text: parts[2]}
	if c.operator == "===" {
		if !arbitraryShape.MatchString(c.text) {
			return clause{}, malformed(s)
		}
		return c, nil
	}
	text := c.text
	if c.operator == "==" || c.operator == "!=" {
		text, c.prefix = strings.CutSuffix(text, ".*")
	}
	version, err := parse(text)
	if err != nil {
		return clause{}, malformed(s)
	}
	c.version, c.text = version, version.String()
	switch {
	case c.prefix:
		if c.text != version.BaseVersion() {
			return clause{}, fmt.Errorf(`must end in ".*" only after a plain release such as "==1.4.*", and %s does not`, quote(s))
		}
		c.text += ".*"
	case version.Local() != "" && c.operator != "==" && c.operator != "!=":
		return clause{}, fmt.Errorf(
			`must not compare local versions ("+...") with %q: use "==" in place of it in %s`, c.operator, quote(s))
	case c.operator == "~=" && !strings.Contains(version.BaseVersion(), "."):
		return clause{}, fmt.Errorf(`must have two numbers or more after "~=", as in "~=1.4", and %s has one`, quote(s))
	}
	return c, nil
}

func malformed(s string) error {
	if s == "" {
		return errors.New(`must be a version such as "2.31.0" or a specifier such as ">=2,<3"`)
	}
	return fmt.Errorf(`must be a version such as "2.31.0" or a specifier such as ">=2,<3", and %s is neither`, quote(s))
}

// String returns the set as PEP 508 writes it, in the order it was given.
func (s Specifier) String() string {
	texts := make([]string, len(s))
	for i, c := range s {
		texts[i] = c.operator + c.text
	}
	return strings.Join(texts, ",")
}

// Match reports whether a version, which need not be normalised, matches all clauses. A version that is not PEP 440 matches only
// "===" with the same text.
func (s Specifier) Match(version string) bool {
	parsed, err := parse(version)
	for _, c := range s {
		if c.operator == "===" {
			if !strings.EqualFold(c.text, strings.TrimSpace(version)) && (err != nil || !strings.EqualFold(c.text, parsed.String())) {
				return false
			}
		} else if err != nil || !c.match(parsed) {
			return false
		}
	}
	return true
}

// Pinned reports whether the set names exactly one version.
func (s Specifier) Pinned() bool {
	return slices.ContainsFunc(s, func(c clause) bool { return c.operator == "===" || c.operator == "==" && !c.prefix })
}

// match follows PEP 440, "Version specifiers". Pre-releases are excluded only where the definition of an operator does so; whether
// to install them is not decided here.
func (c clause) match(v pep440.Version) bool {
	switch c.operator {
	case "==":
		return c.equal(v)
	case "!=":
		return !c.equal(v)
	case ">=":
		return public(v).GreaterThanOrEqual(c.version)
	case "<=":
		return public(v).LessThanOrEqual(c.version)
	case "~=":
		release := c.version.BaseVersion()
		return public(v).GreaterThanOrEqual(c.version) && hasPrefix(v, release[:strings.LastIndexByte(release, '.')])
	case "<":
		// 3.1rc1 does not match "<3.1", although it is before 3.1.
		return v.LessThan(c.version) && (c.version.IsPreRelease() || !v.IsPreRelease() ||
			v.LessThan(pep440.MustParse(c.text+".dev0")))
	case ">":
		// 3.1.post1 and 3.1+local do not match ">3.1", although they are after 3.1.
		return v.GreaterThan(c.version) && !public(v).Equal(c.version) &&
			(c.version.IsPostRelease() || !withoutPost(v).Equal(c.version))
	}
	return false
}

func (c clause) equal(v pep440.Version) bool {
	if c.prefix {
		return hasPrefix(v, c.version.BaseVersion())
	}
	if c.version.Local() == "" {
		v = public(v)
	}
	return v.Equal(c.version)
}

// public returns a version without its local part.
func public(v pep440.Version) pep440.Version {
	if v.Local() == "" {
		return v
	}
	return pep440.MustParse(v.Public())
}

// withoutPost returns the version to which v is a post-release, or v itself when it is none.
func withoutPost(v pep440.Version) pep440.Version {
	before, _, found := strings.Cut(v.Public(), ".post")
	if !found {
		return v
	}
	return pep440.MustParse(before)
}

// hasPrefix reports whether the release of a version begins with the numbers of release and has the same epoch. Numbers that the
// version lacks count as 0.
func hasPrefix(v pep440.Version, release string) bool {
	haveEpoch, have := splitRelease(v.BaseVersion())
	wantEpoch, want := splitRelease(release)
	for len(have) < len(want) {
		have = append(have, "0")
	}
	return haveEpoch == wantEpoch && slices.Equal(have[:len(want)], want)
}

// splitRelease splits a normalised "1!2.3" into its epoch, "0" when it has none, and its numbers.
func splitRelease(s string) (epoch string, numbers []string) {
	epoch, release, found := strings.Cut(s, "!")
	if !found {
		epoch, release = "0", s
	}
	return epoch, strings.Split(release, ".")
}

// quote shows a part of a specifier in a message, cut so that the message stays short.
func quote(s string) string {
	const shown = 60
	if len(s) > shown {
		s = s[:shown] + "..."
	}
	return `"` + s + `"`
}
