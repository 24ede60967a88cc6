package packages

import (
	"os"
	"strings"
)

// Environment returns the variables that give a confined pip the same settings; see PipConfig.Environment.
func (x *Index) Environment() []string { return x.settings.Environment() }

// Upstream is the URL of the proxy to the outside that pip's configuration names, for ProxyOptions; "" for none.
func (x *Index) Upstream() string { return x.settings.Proxy }

// LocalPaths returns the files and directories of this system that a pip with these settings reads, absolute: certificates,
// constraints and the directories of find-links. What does not exist is left out.
func (x *Index) LocalPaths() []string {
	paths := x.LocalDirs()
	for _, path := range append([]string{x.settings.Cert, x.settings.ClientCert}, x.settings.Constraints...) {
		if strings.Contains(path, "://") {
			continue
		}
		path = absolutePath(path)
		if _, err := os.Stat(path); path != "" && err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}
