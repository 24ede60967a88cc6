package operation

import (
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

// SizeText formats a number of bytes for people, such as "512 MiB". n must not be negative.
func SizeText(n int64) string { return humanize.IBytes(uint64(n)) }

// Sentence turns the text of an error into a sentence, with a capital and a full stop. For "" it returns a general sentence.
func Sentence(words string) string {
	if words == "" {
		return "The sandbox could not run the code."
	}
	return strings.ToUpper(words[:1]) + strings.TrimRight(words[1:], ".") + "."
}

// Seconds formats a number of seconds without an exponent.
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

// SentKind describes v, which was sent for a field that takes another kind of value, and says what to do about it where that is not
// obvious. The text fits after "not" and after "it came as".
func SentKind(field string, v any) string {
	kind := JSONKind(v)
	switch v.(type) {
	case string:
		if edge.TakesNumber(field) {
			return kind + " that holds no number"
		}
	case float64:
		if field == "version" {
			return kind + ": put it in quotes, since 2.30 and 2.3 are one number"
		}
	case []any:
		switch field {
		case "code", "stdin":
			return kind + ": join its lines into one string, with line breaks"
		case "package":
			return kind + ": ask for each package in a request of its own"
		}
	}
	return kind
}

// PackagesWords says how a program gets packages, for the description of execute_python. A nil in means that nothing can be installed.
func PackagesWords(in Packages) string {
	if in == nil {
		return " and no way to install packages"
	}
	return "; pip_install installs packages"
}
