package packages

// Package is one distribution of a set.
type Package struct {
	// Name is canonical (PEP 503).
	Name string `json:"name"`
	// Version is as its metadata says (PEP 440).
	Version string `json:"version"`
	// SHA256 of its wheel, in hexadecimal; it names the entry of the store.
	SHA256 string `json:"sha256"`
	// Bytes of its files, unpacked.
	Bytes int64 `json:"bytes"`
	// TopLevel lists the names that it lets programs import, sorted.
	TopLevel []string `json:"top_level"`
	// Requested says that somebody asked for it by name; else it is a dependency.
	Requested bool `json:"requested,omitempty"`
	// Specifier is what was asked for, such as "==2.31.0" or "" for any version (PEP 440).
	Specifier string `json:"specifier,omitempty"`
	// Extras that were asked for, canonical, sorted.
	Extras []string `json:"extras,omitempty"`
}

// Canonical writes a distribution's name as PEP 503 does.
func Canonical(name string) string { return canonicalWheelName(name) }
