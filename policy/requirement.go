package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/pep440"
)

// Bounds of a request, in characters. The longest name on the Python Package Index is shorter than 100.
const (
	maxPackage   = 1024
	maxName      = 128
	maxExtras    = 200
	maxSpecifier = 200
)

// The fields that an InvalidError can name: those of the request.
const (
	fieldPackage = "package"
	fieldVersion = "version"
)

// InvalidError says which field of a request is at fault and what to write instead.
type InvalidError struct {
	// Field is "package" or "version".
	Field string
	// Message is the rest of a sentence that begins with Field: `must be a package name such as "requests", not an option`.
	Message string
}

func (e *InvalidError) Error() string { return e.Field + " " + e.Message }

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Message: fmt.Sprintf(format, args...)}
}

// Requirement is a request for one package (PEP 508) in canonical form: name, extras and versions are normalised. The clauses of
// the specifier keep their order. ParseRequirement makes it; the zero value is not valid.
type Requirement struct {
	// Name is canonical (PEP 503): lower case, "-" as the only separator.
	Name string
	// Extras are canonical, sorted, without duplicates. Nil for none.
	Extras []string
	// Specifier is a normalised PEP 440 specifier set such as ">=2,<3". "" stands for any version.
	Specifier string
}

// String returns the requirement as pip reads it: "requests[socks]==2.31.0".
func (r Requirement) String() string {
	if len(r.Extras) == 0 {
		return r.Name + r.Specifier
	}
	return r.Name + "[" + strings.Join(r.Extras, ",") + "]" + r.Specifier
}

// Satisfied reports whether a version that is installed, or that pip has chosen, fulfils the requirement (PEP 440). A
// pre-release counts like any other version, as PEP 440 says of versions that are installed already. A version that is not
// PEP 440 fulfils only the specifiers "" and "===" with the same text.
func (r Requirement) Satisfied(version string) bool {
	if r.Specifier == "" {
		return true
	}
	clauses, err := pep440.ParseSpecifier(r.Specifier)
	return err == nil && clauses.Match(version)
}

var (
	nameShape = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	separator = regexp.MustCompile(`[-_.]+`)
	// packageShape splits the field package into name, extras and the rest, which are then checked one by one.
	packageShape = regexp.MustCompile(`^([A-Za-z0-9._-]+) *(\[[^\[\]]*\])? *(.*)$`)
	// archiveShape matches names that pip takes for a local file when there is one of that name.
	archiveShape = regexp.MustCompile(`(?i)\.(whl|egg|zip|tgz|tbz|txz|tar|tar\.(gz|bz2|xz|lzma?))$`)
)

// Canonical returns the name as the index compares it (PEP 503): lower case, with one "-" for each run of "-", "_" and ".".
func Canonical(name string) string {
	return strings.ToLower(separator.ReplaceAllString(name, "-"))
}

// isName reports whether a string is a package name (PEP 508) of a length that is accepted.
func isName(s string) bool { return len(s) <= maxName && nameShape.MatchString(s) }

// ParseRequirement parses the two fields of a request. pkg is a name with optional extras, "requests[socks]", and with an
// optional specifier, "requests==2.31.0", when version does not name one. A version of "" or "latest" stands for any version,
// a plain one such as "2.31.0" for exactly that, and a specifier set such as ">=2,<3" for the versions that match it. Options,
// URLs, paths, direct references and environment markers are refused, since they could install something else than the
// named package from the index. Every error is an *InvalidError.
func ParseRequirement(pkg, version string) (Requirement, error) {
	if err := checkText(fieldPackage, pkg, maxPackage); err != nil {
		return Requirement{}, err
	}
	if err := checkText(fieldVersion, version, maxSpecifier); err != nil {
		return Requirement{}, err
	}
	pkg, version = strings.Trim(pkg, " "), strings.Trim(version, " ")
	if strings.EqualFold(version, "latest") {
		version = ""
	}
	if err := checkForeign(pkg); err != nil {
		return Requirement{}, err
	}

	parts := packageShape.FindStringSubmatch(pkg)
	if parts == nil {
		return Requirement{}, notAName(pkg)
	}
	name, extras, rest := parts[1], parts[2], parts[3]
	if rest != "" && !strings.ContainsRune("<>=!~^", rune(rest[0])) {
		switch {
		case rest[0] == '-':
			return Requirement{}, invalid(fieldPackage, `must be a package name such as "requests", without options`)
		case (rest[0] == ',' || pkg[len(name)] == ' ') && !strings.ContainsAny(rest, "[]()"):
			return Requirement{}, invalid(fieldPackage,
				`must be one package name such as "requests", and %s looks like several: ask for each in a request `+
					`of its own`, quote(pkg))
		}
		return Requirement{}, notAName(pkg)
	}
	if len(name) > maxName {
		return Requirement{}, invalid(fieldPackage, "must be a name of at most %d characters, and this one has %d", maxName, len(name))
	}
	if !nameShape.MatchString(name) {
		return Requirement{}, notAName(name)
	}

	requirement := Requirement{Name: Canonical(name)}
	var err error
	if requirement.Extras, err = parseExtras(extras); err != nil {
		return Requirement{}, err
	}
	field, text := fieldVersion, version
	if rest != "" {
		if version != "" {
			return Requirement{}, invalid(fieldPackage,
				`must be a name alone when "version" is given, and %s has a version of its own: keep one of the two`, quote(pkg))
		}
		field, text = fieldPackage, rest
	}
	if text == "" {
		return requirement, nil
	}
	clauses, err := pep440.ParseSpecifier(text)
	if err != nil {
		return Requirement{}, invalid(field, "%v", err)
	}
	requirement.Specifier = clauses.String()
	if len(requirement.Specifier) > maxSpecifier {
		return Requirement{}, invalid(field, "must be at most %d characters of specifier: name fewer versions", maxSpecifier)
	}
	return requirement, nil
}

// checkText refuses a field that is too long or has other characters than printable ASCII. Names of packages have no others, and
// a letter that only looks like an ASCII one would name another package.
func checkText(field, s string, bound int) error {
	if len(s) > bound {
		return invalid(field, "must be at most %d characters, and this has %d", bound, len(s))
	}
	for _, r := range s {
		switch {
		case r > 0x7e:
			return invalid(field, "must be plain ASCII, and it has %+q (%U), which may only look like a letter: type it anew", r, r)
		case r < ' ' || r == 0x7f:
			return invalid(field, "must be one line of plain text, and it has the control character %U: leave that out", r)
		}
	}
	return nil
}

// checkForeign refuses text that pip would take for something else than the name of a package on the index. Each error has its
// own remedy.
func checkForeign(pkg string) error {
	switch {
	case pkg == "":
		return invalid(fieldPackage, `must not be empty: give a package name such as "requests"`)
	case pkg[0] == '-':
		return invalid(fieldPackage, `must be a package name such as "requests", not an option`)
	case strings.Contains(pkg, "://") || strings.HasPrefix(pkg, "git+"):
		return invalid(fieldPackage, `must be a package name such as "requests", not a URL: only packages of the index are installed`)
	case strings.Contains(pkg, "@"):
		return invalid(fieldPackage,
			`must be a package name such as "requests", without "@": a version such as "2.31.0" belongs in `+
				`"version", and direct references are not installed`)
	case strings.Contains(pkg, ";"):
		return invalid(fieldPackage,
			`must be a package name such as "requests", without an environment marker (";"): leave it out, the `+
				`package is for this interpreter`)
	case strings.ContainsAny(pkg, `/\`) || pkg[0] == '.':
		return invalid(fieldPackage, `must be a package name such as "requests", not a path: only packages of the index are installed`)
	case archiveShape.MatchString(pkg):
		return invalid(fieldPackage, `must be a package name such as "requests", not a file: only packages of the index are installed`)
	}
	return nil
}

// parseExtras parses "[a, b]", or "" for no extras.
func parseExtras(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	if len(s) > maxExtras {
		return nil, invalid(fieldPackage, "must have at most %d characters of extras, and this has %d", maxExtras, len(s))
	}
	var extras []string
	for extra := range strings.SplitSeq(s[1:len(s)-1], ",") {
		extra = strings.Trim(extra, " ")
		switch {
		case extra == "":
			return nil, invalid(fieldPackage,
				`must name each extra, as in "requests[socks]", and %s has an extra without a name`, quote(s))
		case !nameShape.MatchString(extra):
			return nil, invalid(fieldPackage, `must name extras as in "requests[socks]", and %s is not such a name`, quote(extra))
		}
		extras = append(extras, Canonical(extra))
	}
	slices.Sort(extras)
	return slices.Compact(extras), nil
}

func notAName(s string) error {
	return invalid(fieldPackage,
		`must be a package name such as "requests", and %s is not one: letters, digits, ".", "_" and "-", with a `+
			`letter or digit at both ends`, quote(s))
}

// quote shows a part of a request in a message, cut so that the message stays short.
func quote(s string) string {
	const shown = 60
	if len(s) > shown {
		s = s[:shown] + "..."
	}
	return `"` + s + `"`
}
