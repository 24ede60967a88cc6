package install

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/pep440"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
)

// maxSearch bounds how long pip goes on trying other versions after its first dead end.
const maxSearch = time.Minute

// search is an installer's report about pip's search for versions.
type search struct {
	DeadEnds []deadEnd `json:"dead_ends"` // the first few
	GaveUp   bool      `json:"gave_up"`   // the search was ended, after too many dead ends or too much time
}

// deadEnd is a requirement for which pip found nothing, so that it tried another version of the package that has it.
type deadEnd struct {
	Name          string `json:"name"` // canonical
	Specifier     string `json:"specifier"`
	Needs         string `json:"needs"`  // the requirement as pip shows it
	Parent        string `json:"parent"` // the package that has the requirement, with its extras; "" for the request
	ParentVersion string `json:"parent_version"`
	// Missing says that no file fits this requirement even by itself, so the cause is not a conflict with another one.
	Missing bool `json:"missing"`
}

// deadEnd returns the refusal that explains why pip found no set of versions. It is nil when pip found one that is right, and when pip's
// own message explains the failure best. err is the error of pip's task.
func (i *ongoing) deadEnd(ctx context.Context, answers installerAnswers, err error) error {
	refused, _ := errors.AsType[*refusal](err)
	tooLarge := refused != nil && refused.status == TooLarge // the search itself has downloaded too much
	ends := answers.DeadEnds
	switch {
	case err != nil && !tooLarge:
		return nil
	case err == nil && answers.Status == 0: // pip found a set, but may have chosen a version too old to have the extras that were asked for
		if len(lostExtras(i.req, answers.Chosen)) == 0 {
			return nil
		}
		ends = slices.DeleteFunc(slices.Clone(ends), func(d deadEnd) bool { return !d.of(i.req) })
	}
	if len(ends) == 0 {
		return nil
	}
	missing := slices.IndexFunc(ends, func(d deadEnd) bool { return d.Missing && d.of(i.req) })
	if missing < 0 {
		missing = slices.IndexFunc(ends, func(d deadEnd) bool { return d.Missing })
	}
	if missing >= 0 {
		return i.nothingFor(ctx, ends[missing])
	}
	if err == nil && answers.Status != 0 && !answers.GaveUp {
		return nil // a conflict: pip's own message names all requirements of it
	}
	var reasons []string
	told := map[string]bool{}
	for _, end := range ends {
		if !told[end.Parent] && len(told) < 6 { // the first version of each, which is the newest
			told[end.Parent] = true
			reasons = append(reasons, end.String())
		}
	}
	return refuse(Conflict, "No version of %s that was tried goes together with what is there and with what it needs: %s. Nothing has changed; ask for another version.",
		requirement(i.req.Name, i.req.Extras, i.req.Specifier), strings.Join(reasons, "; "))
}

// of says whether the requested package itself has the requirement, not one of its dependencies.
func (d deadEnd) of(req Request) bool {
	name, _, _ := strings.Cut(d.Parent, "[")
	return name == req.Name
}

// String describes the dead end as a part of a sentence. The requirement comes from a package's metadata, so it is cut to 200 bytes.
func (d deadEnd) String() string {
	needs := strings.Join(strings.Fields(d.Needs), " ")
	if len(needs) > 200 {
		needs = strings.ToValidUTF8(needs[:200], "") + "..."
	}
	if d.Parent == "" {
		return "what was asked for includes " + needs
	}
	return d.Parent + " " + d.ParentVersion + " needs " + needs
}

// lostExtras returns the extras that were asked for and that the chosen version does not have.
func lostExtras(req Request, set []chosen) (lost []string) {
	n := slices.IndexFunc(set, func(c chosen) bool { return packages.Canonical(c.Name) == req.Name })
	if n < 0 {
		return nil
	}
	for _, extra := range req.Extras {
		if !slices.ContainsFunc(set[n].Extras, func(has string) bool { return packages.Canonical(has) == extra }) {
			lost = append(lost, extra)
		}
	}
	return lost
}

// nothingFor returns the refusal for a requirement that no file of the index fits.
func (i *ongoing) nothingFor(ctx context.Context, end deadEnd) error {
	page, err := i.req.Index.Lookup(ctx, end.Name)
	if err != nil {
		return indexFailure(err)
	}
	return nothingForDependency(i.req, end, page, i.installs.host.Python.Version)
}

func nothingForDependency(req Request, end deadEnd, page packages.Page, python string) error {
	have := lookAtFiles(page, end.Specifier, python)
	status, remedy := NotFound, "Ask for another version, or for another package."
	var why string
	if strings.HasPrefix(end.Parent, req.Name+"[") {
		remedy = "Ask for " + req.Name + " alone, and then by their names for those packages of the extra that are needed."
	}
	switch {
	case !page.Found:
		why = "which the index does not have"
	case have.wheels > 0:
		status, why = NoWheel, "which has wheels for other systems or other Pythons only; this is Python "+python
	case have.sources > 0:
		status, why = NoWheel, "which comes as source only, and source is not built here, since that runs the package's own code at install"
		remedy += " The operator can set packages sdist allow."
	case have.python != "":
		status, why = Conflict, "which needs Python "+have.python+", and this is Python "+python
	case have.withdrawn > 0:
		why = "of which all was withdrawn by its authors (yanked)"
	default:
		why = "and the index has no such version of it; it has " + cmp.Or(pageVersions(page), "none")
	}
	return refuse(status, "%s cannot be installed, since %s, %s. Nothing has changed. %s",
		requirement(req.Name, req.Extras, req.Specifier), end, why, remedy)
}

// matchingFiles counts the files of a page that match a specifier and are for this Python.
type matchingFiles struct {
	wheels, sources, withdrawn int
	python                     string // the Requires-Python of the last file that does not fit this Python; "" for none
}

func lookAtFiles(page packages.Page, specifier, python string) (have matchingFiles) {
	matches := func(specifier, version string) bool {
		set, err := pep440.ParseSpecifier(specifier)
		return err != nil || set.Match(version) // "" is no specifier, and what is none excludes nothing, as for pip
	}
	for _, f := range page.Files {
		switch {
		case f.Version == "" || !f.Wheel && !f.Sdist || !matches(specifier, f.Version):
		case !matches(f.RequiresPython, python):
			have.python = f.RequiresPython
		case f.Yanked:
			have.withdrawn++
		case f.Wheel:
			have.wheels++
		default:
			have.sources++
		}
	}
	return have
}
