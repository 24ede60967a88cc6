package packages

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/pep440"
)

// Defaults of WheelLimits.
const (
	defaultMaxBytes = 2 << 30
	defaultMaxFiles = 100_000
)

// WheelLimits says how much a wheel may bring, and which names it may not take. The zero value is usable.
type WheelLimits struct {
	// MaxBytes bounds the unpacked files of a wheel together, and again the files that are compiled from them. 0 means 2 GiB.
	MaxBytes int64
	// MaxFiles counts the entries of the archive, directories included. 0 means 100,000.
	MaxFiles int
	// Forbidden returns true for a top-level name that a wheel may not bring because the standard library has it, such as
	// "json". It may be called concurrently. nil forbids none. sitecustomize, usercustomize and names that start with
	// _sandbox_ are refused in any case.
	Forbidden func(topLevel string) bool
}

func (l WheelLimits) withDefaults() WheelLimits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = defaultMaxBytes
	}
	if l.MaxFiles <= 0 {
		l.MaxFiles = defaultMaxFiles
	}
	if l.Forbidden == nil {
		l.Forbidden = func(string) bool { return false }
	}
	return l
}

// WheelError says why a wheel is refused. The cause is in the file itself, so that trying again with the same file is futile.
type WheelError struct {
	// Wheel is the name of the wheel's file.
	Wheel string
	// Reason is a part of a sentence, such as `it has the symbolic link "a/b"`.
	Reason string
	// TooLarge says that the wheel's files have more than WheelLimits.MaxBytes.
	TooLarge bool
}

func (e *WheelError) Error() string {
	return fmt.Sprintf("the wheel %q is refused: %s; download it again, or choose another version", e.Wheel, e.Reason)
}

// wheelName is what the name of a wheel's file says (PEP 427).
type wheelName struct {
	file    string
	name    string // canonical
	version string // as in the file's name, where _ may stand for -
}

// refuse makes a WheelError.
func (n wheelName) refuse(format string, args ...any) error {
	return &WheelError{Wheel: n.file, Reason: fmt.Sprintf(format, args...)}
}

var (
	distributionName = regexp.MustCompile(`^(?i:[a-z0-9]|[a-z0-9][a-z0-9._-]*[a-z0-9])$`)
	// distributionVersion makes sure that a version can be part of a directory's name. It does not check PEP 440, which is
	// left to the resolver.
	distributionVersion = regexp.MustCompile(`^(?i:[a-z0-9][a-z0-9.!+_-]*)$`)
	wheelTag            = regexp.MustCompile(`^(?i:[a-z0-9_.]+)$`)
	wheelBuild          = regexp.MustCompile(`^(?i:[0-9][a-z0-9_.]*)$`)
	nameSeparators      = regexp.MustCompile(`[-_.]+`)
)

// maxNameBytes bounds a name and its version, so that an entry of the store fits into a file's name.
const maxNameBytes = 200

func parseWheelName(file string) (wheelName, error) {
	n := wheelName{file: file}
	stem, isWheel := strings.CutSuffix(file, ".whl")
	parts := strings.Split(stem, "-")
	if !isWheel || len(parts) != 5 && len(parts) != 6 {
		return n, n.refuse("its name is not of the form name-version-python-abi-platform.whl")
	}
	switch tags := parts[len(parts)-3:]; {
	case !distributionName.MatchString(parts[0]) || len(parts[0])+len(parts[1]) > maxNameBytes:
		return n, n.refuse("its name starts with %q, which is no name of a distribution", parts[0])
	case !distributionVersion.MatchString(parts[1]):
		return n, n.refuse("its name has %q where the version belongs", parts[1])
	case len(parts) == 6 && !wheelBuild.MatchString(parts[2]):
		return n, n.refuse("its name has %q where the build number belongs", parts[2])
	case !wheelTag.MatchString(tags[0]) || !wheelTag.MatchString(tags[1]) || !wheelTag.MatchString(tags[2]):
		return n, n.refuse("its name ends with %q, which are no tags", strings.Join(tags, "-"))
	}
	n.name, n.version = canonicalWheelName(parts[0]), parts[1]
	return n, nil
}

// matches says whether a name and a version, which need not be canonical, are those of the wheel.
func (n wheelName) matches(name, version string) bool {
	return canonicalWheelName(name) == n.name && pep440.Equal(dashed(version), dashed(n.version))
}

// dashed writes a version from a file's name as PEP 440 does, with - for _. This matters for 1.0-1, a post release, which PEP
// 440 does not let be written 1.0_1.
func dashed(version string) string { return strings.ReplaceAll(version, "_", "-") }

// canonicalWheelName writes a distribution's name as PEP 503 does.
func canonicalWheelName(name string) string {
	return strings.ToLower(nameSeparators.ReplaceAllString(name, "-"))
}

// importable returns the name by which a program imports a file or directory at the top of a site, or "" when it cannot.
func importable(top string, dir bool) string {
	name := top
	if !dir {
		switch stem, extension, _ := strings.Cut(top, "."); {
		case extension == "py", extension == "pyc":
			name = stem
		case extension == "so" || strings.HasSuffix(extension, ".so"): // x.so, x.abi3.so, x.cpython-311-x86_64-linux-gnu.so
			name = stem
		default:
			return ""
		}
	}
	if name == pycache || !isIdentifier(name) {
		return ""
	}
	return name
}

// isIdentifier approximates Python's str.isidentifier: the Unicode tables of Go and Python differ in a few characters.
func isIdentifier(name string) bool {
	for i, r := range name {
		if r == '_' || unicode.IsLetter(r) || unicode.Is(unicode.Nl, r) {
			continue
		}
		if i == 0 || !unicode.In(r, unicode.Nd, unicode.Mn, unicode.Mc, unicode.Pc) {
			return false
		}
	}
	return name != ""
}
