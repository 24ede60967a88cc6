package install

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// indexFailure turns an error of the package index, or of the way to it, into a refusal. Other errors it returns as they are.
func indexFailure(err error) error {
	if e, ok := errors.AsType[*packages.TooLargeError](err); ok {
		return refuse(TooLarge, "%s. The operator's packages max_download sets the limit; nothing has changed.", capital(e.Error()))
	}
	if e, ok := errors.AsType[*packages.IndexError](err); ok {
		status := Failed
		if e.Timeout {
			status = TimedOut
		}
		return refuse(status, "%s. Nothing has changed; try again later, or tell the operator.", capital(e.Error()))
	}
	if e, ok := errors.AsType[*packages.HashError](err); ok {
		return refuse(Failed, "%s. It was thrown away and nothing has changed; try again, or tell the operator.", capital(e.Error()))
	}
	if e, ok := errors.AsType[*packages.HostError](err); ok {
		return refuse(Failed, "%s. Nothing has changed.", capital(e.Error()))
	}
	if e, ok := errors.AsType[*packages.NotFoundError](err); ok {
		return refuse(Failed, "%s. Nothing has changed; try again, or ask for another version.", capital(e.Error()))
	}
	return err
}

func capital(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + strings.TrimRight(text[1:], ".")
}

var (
	pipVersions = regexp.MustCompile(`\(from versions: ([^)]*)\)`)
	pipMissing  = regexp.MustCompile(`No matching distribution found for (.+)`)
	pipCause    = regexp.MustCompile(`(?s)The conflict is caused by:\s*(.*?)\n\s*\n`)
	pipBuild    = regexp.MustCompile(`(?s)\[\d+ lines? of output\](.*)\[end of output\]`)
	pipHash     = regexp.MustCompile(`(?i)do not match the hashes|hash mismatch`)
	pipNetwork  = regexp.MustCompile(`(?i)Max retries exceeded|Connection (?:aborted|refused|broken)|ReadTimeoutError|NewConnectionError|ProxyError|IncompleteRead|HTTP error 5\d\d|5\d\d Server Error`)
	pipTimeout  = regexp.MustCompile(`(?i)Read timed out|ReadTimeoutError|ConnectTimeoutError`)
)

// pipFailure tells from pip's output and the index's page why pip could not resolve. The output is matched against messages in pip's
// source (resolution/resolvelib/factory.py and the network code). A message that pip has changed gives status failed, and its last line
// is shown.
func pipFailure(req Request, page packages.Page, python, log string) error {
	asked := requirement(req.Name, req.Extras, req.Specifier)
	if cause := pipCause.FindStringSubmatch(log + "\n\n"); cause != nil || strings.Contains(log, "ResolutionImpossible") {
		detail := ""
		if cause != nil {
			detail = ": " + strings.Join(strings.FieldsFunc(cause[1], func(r rune) bool { return r == '\n' }), "; ")
		}
		return refuse(Conflict, "%s cannot be installed together with what is there or with what it needs%s. Nothing has changed; ask for another version.",
			asked, strings.Join(strings.Fields(detail), " "))
	}
	if missing := pipMissing.FindStringSubmatch(log); missing != nil {
		name := strings.TrimSpace(missing[1])
		if !strings.EqualFold(packages.Canonical(leadingName(name)), req.Name) {
			return refuse(NotFound, "%s needs %s, of which the index has no version for this Python (%s). Nothing has changed.", asked, name, python)
		}
		return noneMatches(req, page, python, log)
	}
	if output := pipBuild.FindStringSubmatch(log); output != nil {
		return refuse(Failed, "Building %s, or what it needs, from source failed%s. Nothing has changed; ask for a version that comes as a wheel.", asked, process.LastLine(output[1]))
	}
	if pipHash.MatchString(log) {
		return refuse(Failed, "A file that %s needs is not what the index says it is (its hash differs). It was thrown away and nothing has changed; try again, or tell the operator.", asked)
	}
	if pipTimeout.MatchString(log) {
		return refuse(TimedOut, "The package index did not answer in time. Nothing has changed; try again later.")
	}
	if pipNetwork.MatchString(log) {
		return refuse(Failed, "The package index could not be read to the end%s. Nothing has changed; try again later, or tell the operator.", lastError(log))
	}
	return refuse(Failed, "pip could not resolve %s%s. Nothing has changed.", asked, lastError(log))
}

// directReference returns the name of a package that another package requires by a URL on one of hosts (a direct reference, PEP 508), or
// "". It finds it in the line that pip logs when it collects the package.
func directReference(log string, hosts []string) string {
	for line := range strings.Lines(log) {
		name, address, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "Collecting "), "@ ")
		address, _, _ = strings.Cut(address, " ")
		u, err := url.Parse(strings.TrimSpace(address))
		if ok && err == nil && slices.ContainsFunc(hosts, func(host string) bool { return u.Host != "" && (host == u.Host || host == u.Hostname()) }) {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

func leadingName(requirement string) string {
	end := strings.IndexFunc(requirement, func(r rune) bool { return strings.ContainsRune("[<>=!~;( @", r) })
	if end < 0 {
		return requirement
	}
	return requirement[:end]
}

// noneMatches returns the refusal that says why no file on the index's page fits the request.
func noneMatches(req Request, page packages.Page, python, log string) error {
	var wheels, sources, withdrawn int
	var versions []string
	requires := map[string]string{}
	for _, f := range page.Files {
		if f.Version == "" || !req.Satisfied(f.Version) {
			continue
		}
		switch {
		case f.Yanked && (f.Wheel || f.Sdist):
			withdrawn++
		case f.Wheel:
			wheels++
		case f.Sdist:
			sources++
		}
		if f.RequiresPython != "" {
			requires[f.Version] = f.RequiresPython
		}
		if !slices.Contains(versions, f.Version) {
			versions = append(versions, f.Version)
		}
	}
	asked := requirement(req.Name, nil, req.Specifier)
	if strings.Contains(log, "that require a different python version") && len(requires) > 0 {
		last := versions[len(versions)-1]
		return refuse(Conflict, "%s %s needs Python %s, and this is Python %s. Ask for an older version.", req.Name, last, cmp.Or(requires[last], "of another version"), python)
	}
	switch {
	case wheels == 0 && sources == 0 && withdrawn > 0:
		return refuse(NotFound, "All that the index has of %s was withdrawn by its authors (yanked): %s. Ask for another version or package, or for exactly that version if it is meant.", asked, strings.Join(versions, ", "))
	case wheels == 0 && sources > 0 && !req.BuildSource:
		return refuse(NoWheel, "%s comes as source only, and source is not built here, since that runs the package's own code at install. Ask for a version that comes as a wheel, or for another package; the operator can set packages sdist allow.", asked)
	case wheels > 0:
		return refuse(NoWheel, "%s has wheels for other systems or other Pythons only; this is Python %s. Ask for another version.", asked, python)
	}
	known := "none"
	if found := pipVersions.FindStringSubmatch(log); found != nil {
		if all := strings.Split(found[1], ", "); len(all) > 15 {
			known = "…, " + strings.Join(all[len(all)-15:], ", ")
		} else {
			known = found[1]
		}
	}
	if known == "none" {
		if shown := pageVersions(page); shown != "" {
			known = shown
		}
	}
	return refuse(NotFound, "The index has no version of %s that matches %q. It has: %s.", req.Name, cmp.Or(req.Specifier, "any release"), known)
}

// pageVersions lists the last 15 versions on a page that are not yanked.
func pageVersions(page packages.Page) string {
	var versions []string
	for _, f := range page.Files {
		if f.Version != "" && !f.Yanked && !slices.Contains(versions, f.Version) {
			versions = append(versions, f.Version)
		}
	}
	if len(versions) > 15 {
		versions = versions[len(versions)-15:]
	}
	return strings.Join(versions, ", ")
}

// lastError returns ": " and the last line that pip marks as an error, or nothing.
func lastError(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for _, line := range slices.Backward(lines) {
		if text, ok := strings.CutPrefix(line, "ERROR: "); ok && text != "Exception:" { // a traceback follows, whose last line is the error
			return process.LastLine(text)
		}
	}
	return process.LastLine(log)
}
