package policy

import "strings"

// namespaces are import roots that many distributions share, each named after its modules: google.cloud.storage is of
// google-cloud-storage.
var namespaces = map[string]bool{
	"azure": true, "backports": true, "flufl": true, "google": true, "jaraco": true, "keyrings": true, "llama_index": true,
	"opentelemetry": true, "ruamel": true, "sphinxcontrib": true, "zope": true,
}

// projectNames are names of packages that code more often uses for modules of its own.
var projectNames = map[string]bool{
	"common": true, "config": true, "data": true, "lib": true, "logger": true, "schema": true, "tools": true, "utils": true,
}

// IsStandardLibrary reports whether an import name, top-level or dotted, belongs to the standard library of any CPython
// from 3.10 to 3.14: also one that later versions have removed, such as telnetlib.
func IsStandardLibrary(module string) bool {
	top, _, _ := strings.Cut(module, ".")
	_, found := stdlib()[top]
	return found
}

// Provider returns the canonical name of the distribution that provides an import name, top-level or dotted, where the two
// names differ: "cv2" is of "opencv-python". "" means that the table does not have it; see Guess.
func Provider(module string) string {
	for {
		if distribution, found := modules()[module]; found {
			return distribution
		}
		end := strings.LastIndexByte(module, '.')
		if end < 0 {
			return ""
		}
		module = module[:end]
	}
}

// Guess returns the canonical name of the distribution that an import name most likely comes from: what Provider says, else
// the name itself when a popular package has it. "" means no idea, or that nothing needs to be installed.
func Guess(module string) string {
	if distribution := Provider(module); distribution != "" {
		return distribution
	}
	top, _, _ := strings.Cut(module, ".")
	if IsStandardLibrary(module) || projectNames[top] {
		return ""
	}
	if namespaces[top] {
		for prefix := module; len(prefix) > len(top); prefix = prefix[:strings.LastIndexByte(prefix, '.')] {
			if name := Canonical(prefix); isPopular(name) {
				return name
			}
		}
		return ""
	}
	if name := Canonical(top); isPopular(name) {
		return name
	}
	return ""
}

func isPopular(name string) bool {
	_, found := popular()[name]
	return found
}
