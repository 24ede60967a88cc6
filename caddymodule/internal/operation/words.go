package operation

import (
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// SizeText is a limit in bytes as a person writes it.
func SizeText(n int64) string { return humanize.IBytes(uint64(n)) } //nolint:gosec // a limit is positive

// Sentence makes a sentence of words that begin small, as errors do.
func Sentence(words string) string {
	if words == "" {
		return "The sandbox could not run the code."
	}
	return strings.ToUpper(words[:1]) + strings.TrimRight(words[1:], ".") + "."
}

func Seconds(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// JSONKind names a decoded JSON value as a person would.
func JSONKind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}

// PackagesWords says how a program gets packages, for the description of execute_python.
func PackagesWords(in Packages) string {
	if in == nil {
		return " and no way to install packages"
	}
	return "; pip_install installs packages"
}
