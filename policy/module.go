package policy

import "strings"

// namespaces are top-level import names that many distributions share. Each distribution is named after its modules:
// google-cloud-storage provides google.cloud.storage.
var namespaces = map[string]bool{
	"azure": true, "backports": true, "flufl": true, "google": true, "jaraco": true, "keyrings": true, "llama_index": true,
	"opentelemetry": true, "ruamel": true, "sphinxcontrib": true, "zope": true,
}

// projectNames are import names that more often mean a module of the program itself than the package of this name.
var projectNames = map[string]bool{
	"common": true, "config": true, "data": true, "lib": true, "logger": true, "schema": true, "tools": true, "utils": true,
}

// IsStandardLibrary reports whether an import name, top-level or dotted, belongs to the standard library of any CPython from
// 3.10 to 3.14. That includes modules that a later version has removed, such as telnetlib.
func IsStandardLibrary(module string) bool {
	top, _, _ := strings.Cut(module, ".")
	_, found := stdlib()[top]
	return found
}

// Provider returns the canonical name of the distribution that provides an import name, top-level or dotted, where the two
// names differ: "opencv-python" for "cv2". "" means that the built-in list does not have the import name; see Guess.
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

// Guess returns the canonical name of the distribution that most likely provides an import name: what Provider says, or else
// the import name itself when a popular package has that name. "" means that there is no likely one, or that the module is in the
// standard library.
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
