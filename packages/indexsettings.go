package packages

import (
	"os"
	"strings"
)

// Environment returns the environment variables that give a confined pip the settings of the Index; see
// PipConfig.Environment.
func (x *Index) Environment() []string { return x.settings.Environment() }

// Upstream is the URL of the outgoing proxy in pip's configuration, for ProxyOptions.Upstream; "" for none. It may have a
// password.
func (x *Index) Upstream() string { return x.settings.Proxy }

// LocalPaths returns the absolute paths of the local files and directories that a pip with these settings reads: certificates,
// constraints and the directories of find-links. Paths that do not exist are left out.
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
