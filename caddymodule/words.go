package caddymodule

import (
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// sizeText is a limit in bytes as a person writes it.
func sizeText(n int64) string { return humanize.IBytes(uint64(n)) } //nolint:gosec // a limit is positive

// sentenceOf makes a sentence of words that begin small, as errors do.
func sentenceOf(words string) string {
	if words == "" {
		return "The sandbox could not run the code."
	}
	return strings.ToUpper(words[:1]) + strings.TrimRight(words[1:], ".") + "."
}

func seconds(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// kindOf names a decoded JSON value as a person would.
func kindOf(v any) string {
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

// packagesWords says how a program gets packages, for the description of execute_python.
func packagesWords(in installer) string {
	if in == nil {
		return " and no way to install packages"
	}
	return "; pip_install installs packages"
}
