package hint

import (
	"regexp"
	"slices"
	"strings"
)

// pipSays matches what pip, a shell or Python says when packages cannot be installed.
var pipSays = regexp.MustCompile(`(?m)^\s*ERROR: (?:No matching distribution found for |Could not install packages due to )` +
	`|^\s*error: externally-managed-environment` +
	`|: No module named pip\b` +
	`|\bpip3?: (?:command )?not found` +
	`|is likely not a problem with pip\.` +
	`|(?m:^  File "[^"\n]*/pip/_internal/)`)

// pipFails matches Python's exceptions about a pip that is missing or has failed.
var pipFails = regexp.MustCompile(`No such file or directory: '(?:[^'\n]*/)?pip3?(?:\.\d+)?'` +
	`|Command .{0,200}\bpip3?['", ]{1,5}install\b`)

// triedPip reports whether a program wanted to install packages with pip, which has no network here.
func triedPip(out, errs string, failed bool) bool {
	first := []string{"pip", "ERROR: ", "externally-managed"} // each match of the expressions holds one of these, which are faster to find
	if !containsAny(out, first...) && !containsAny(errs, first...) {
		return false
	}
	return pipSays.MatchString(errs) || pipSays.MatchString(out) || failed && pipFails.MatchString(errs)
}

var (
	notFound = regexp.MustCompile(`(?m)^\s*ERROR: No matching distribution found for (\S+)`)
	// installs matches a call of pip in a program: as words of a shell, as a list of strings, or as a line of a notebook.
	installs = regexp.MustCompile(`(?:\bpip3?(?:\.\d+)?|\bmain(\(\s*\[))((?:["']?\s*,)?\s*["']?)install\b([^\n]*)`)
	ends     = regexp.MustCompile(`["']\s*[,)+]|[\])|#;&]|[<>]\s|\\n`)
	listEnds = regexp.MustCompile(`[\])]`)
)

// maxNames is how many packages a hint names.
const maxNames = 5

// pipNames returns the packages that a program wanted to install, as far as they can be read from its code, or else from what pip said.
// They may be anything.
func pipNames(code, out, errs string) []string {
	var names []string
	add := func(name string) {
		name = strings.Trim(name, `"',`)
		if name != "" && len(names) < maxNames && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var code64 string
	if strings.Contains(code, "install") {
		code64 = head(code)
	}
	for _, found := range installs.FindAllStringSubmatch(code64, maxNames) {
		for _, name := range arguments(found[3], found[1] != "" || strings.Contains(found[2], ",")) {
			add(name)
		}
	}
	if len(names) > 0 {
		return names
	}
	for _, text := range []string{errs, out} {
		for _, found := range notFound.FindAllStringSubmatch(text, maxNames) {
			add(found[1])
		}
	}
	return names
}

// takesValue are the options of pip install whose value is the next word.
var takesValue = []string{"-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-t",
	"--target", "--prefix", "--root", "--python", "--timeout", "--retries", "--proxy", "--trusted-host", "--cache-dir", "-e", "--editable"}

// arguments returns the words after "install" that can name packages. list says that they are strings of a list.
func arguments(text string, list bool) (names []string) {
	end := ends
	if list {
		end = listEnds
	}
	// A bracket right after a name opens its extras, so its closing bracket does not end the arguments.
	at := 0
	for {
		found := end.FindStringIndex(text[at:])
		if found == nil {
			break
		}
		stop := at + found[0]
		if open := strings.LastIndexByte(text[:stop], '['); text[stop] == ']' && open > 0 && isWord(text[open-1]) {
			at = stop + 1
			continue
		}
		text = text[:stop]
		break
	}
	skip := false
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\"'", r) || list && r == ',' }) {
		switch {
		case skip:
			skip = false
		case strings.HasPrefix(word, "-"):
			skip = slices.Contains(takesValue, word)
		case strings.ContainsAny(word, `/\{}:@$*`):
		default:
			names = append(names, word)
		}
	}
	return names
}

func isWord(c byte) bool {
	return c == '_' || c == '-' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
