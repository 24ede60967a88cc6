package packages

// Package is one distribution of a set.
type Package struct {
	// Name is canonical (PEP 503).
	Name string `json:"name"`
	// Version as the wheel's METADATA writes it: not normalized (PEP 440).
	Version string `json:"version"`
	// SHA256 of the wheel's file, in lower-case hexadecimal. Its first digits are in the name of the store's entry.
	SHA256 string `json:"sha256"`
	// Bytes of the unpacked files together, those compiled from them included.
	Bytes int64 `json:"bytes"`
	// TopLevel lists the top-level names that programs can import from the package, sorted.
	TopLevel []string `json:"top_level"`
	// Requested says that a client asked for the package by name; otherwise it is here as a dependency.
	Requested bool `json:"requested,omitempty"`
	// Specifier of the request, such as "==2.31.0" (PEP 440); "" for any version.
	Specifier string `json:"specifier,omitempty"`
	// Extras of the request, canonical, sorted.
	Extras []string `json:"extras,omitempty"`
}

// Canonical writes a distribution's name as PEP 503 does.
func Canonical(name string) string { return canonicalWheelName(name) }
