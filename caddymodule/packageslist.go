package caddymodule

import (
	"context"
	"sort"
)

// packageList is the body of GET /packages.
type packageList struct {
	Generation int           `json:"generation" doc:"The number of the current set of installed packages; it grows with each install."`
	Packages   []packageInfo `json:"packages" nullable:"false" doc:"What programs can import besides the standard library."`
}

type packageInfo struct {
	Name       string `json:"name" doc:"Canonical name."`
	Version    string `json:"version" doc:"Such as 2.31.0."`
	Source     string `json:"source" enum:"installed,interpreter" doc:"Whether it was installed here or comes with the server's Python."`
	Generation int    `json:"generation,omitempty" doc:"The set it is in, when it was installed here."`
}

// list says what is there.
func (i *installation) list(ctx context.Context) (packageList, error) {
	generation, set, interpreter, err := i.pool.InstalledPackages(ctx)
	if err != nil {
		p := asProblem(err)
		p.count()
		return packageList{}, p
	}
	out := packageList{Generation: generation, Packages: []packageInfo{}}
	for _, one := range set {
		out.Packages = append(out.Packages, packageInfo{one.Name, one.Version, "installed", generation})
	}
	for name, version := range interpreter {
		out.Packages = append(out.Packages, packageInfo{Name: name, Version: version, Source: "interpreter"})
	}
	sort.Slice(out.Packages, func(a, b int) bool { return out.Packages[a].Name < out.Packages[b].Name })
	return out, nil
}
