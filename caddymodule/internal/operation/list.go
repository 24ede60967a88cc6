package operation

import (
	"context"
	"sort"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

// PackageList is the body of GET /packages.
type PackageList struct {
	Generation int           `json:"generation" doc:"The number of the current set of installed packages; it grows with each install."`
	Packages   []PackageInfo `json:"packages" nullable:"false" doc:"What programs can import besides the standard library."`
}

// PackageInfo is one package that programs can import.
type PackageInfo struct {
	Name       string `json:"name" doc:"Canonical name."`
	Version    string `json:"version" doc:"Such as 2.31.0."`
	Source     string `json:"source" enum:"installed,interpreter" doc:"Whether it was installed here or comes with the server's Python."`
	Generation int    `json:"generation,omitempty" doc:"The set it is in, when it was installed here."`
}

// List returns the packages that programs can import, sorted by name. Every error is a *edge.Problem.
func (i *Installs) List(ctx context.Context) (PackageList, error) {
	generation, set, interpreter, err := i.Runner.InstalledPackages(ctx)
	if err != nil {
		p := edge.AsProblem(err)
		p.Count()
		return PackageList{}, p
	}
	out := PackageList{Generation: generation, Packages: []PackageInfo{}}
	for _, one := range set {
		out.Packages = append(out.Packages, PackageInfo{one.Name, one.Version, "installed", generation})
	}
	for name, version := range interpreter {
		out.Packages = append(out.Packages, PackageInfo{Name: name, Version: version, Source: "interpreter"})
	}
	sort.Slice(out.Packages, func(a, b int) bool { return out.Packages[a].Name < out.Packages[b].Name })
	return out, nil
}
