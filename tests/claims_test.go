package tests

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/claims.md names what holds each claim of docs/security.md. A claim whose words have changed fails here, and so does the name of a
// test or a case that is gone: whoever changes the one must look at the other.
func TestEachClaimNamesItsTest(t *testing.T) {
	t.Parallel()
	said, tests, cases := sectionsOf(t, "../docs/security.md"), namesOfTests(t), idsOfCases(t)
	for heading, table := range sectionsOf(t, "../docs/claims.md") {
		section, found := said[heading]
		if !found {
			t.Errorf("docs/claims.md has the heading %q, which docs/security.md has not: give both the same headings", heading)
			continue
		}
		claims := claimsIn(t, heading, table)
		if len(claims) == 0 {
			t.Errorf("docs/claims.md has no claim below %q: give it a table, or remove the heading", heading)
		}
		for _, c := range claims {
			if n := strings.Count(unwrapped(section), c.words); n != 1 {
				t.Errorf("docs/security.md has %q %d times below %q, not once: quote what it says now, and see whether the tests still hold that", c.words, n, heading)
			}
			for _, name := range c.names {
				if fault := faultOf(name, tests, cases); fault != "" {
					t.Errorf("the claim %q of docs/claims.md names %q, %s", c.words, name, fault)
				}
			}
		}
	}
}

// claim is a row of docs/claims.md: words of docs/security.md, and the names of what holds them.
type claim struct {
	words string
	names []string
}

// sectionsOf returns the text below each heading of a document, by heading. What stands before the first is left out.
func sectionsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, section := range regexp.MustCompile(`(?m)^###? `).Split(string(text), -1)[1:] {
		heading, below, _ := strings.Cut(section, "\n")
		sections[heading] = below
	}
	if len(sections) == 0 {
		t.Fatalf("%s has no headings", file)
	}
	return sections
}

// unwrapped returns a text in one line, without the escapes of bars that cells of tables need.
func unwrapped(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, `\|`, "|")), " ")
}

// claimsIn reads the table below a heading of docs/claims.md.
func claimsIn(t *testing.T, heading, table string) (claims []claim) {
	t.Helper()
	row := regexp.MustCompile("(?m)^\\| ((?:[^|\\\\]|\\\\.)+) \\| (`[^`|]+`(?:, `[^`|]+`)*) \\|$")
	name := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line == "| claim | what holds it |" || line == "|---|---|" {
			continue
		}
		cells := row.FindStringSubmatch(line)
		if cells == nil {
			t.Errorf("docs/claims.md has a line below %q that is no row: write | a claim | `TestName`, `TestName: case`, `by hand: what` |, not %q", heading, line)
			continue
		}
		c := claim{words: unwrapped(cells[1])}
		for _, found := range name.FindAllStringSubmatch(cells[2], -1) {
			c.names = append(c.names, found[1])
		}
		claims = append(claims, c)
	}
	return claims
}

// faultOf says what is wrong with the name of what holds a claim; "" is nothing.
func faultOf(name string, tests, cases map[string]bool) string {
	test, what, more := strings.Cut(name, ": ")
	switch {
	case test == "by hand" && what == "":
		return "which does not say what is to be looked at"
	case test == "by hand":
		return ""
	case !tests[test]:
		return "but no test function has the name " + test + ": name the one that holds the claim now"
	case more && !cases[what]:
		return "but no case of tests/cases has the id " + what + ": name the one that holds the claim now"
	}
	return ""
}

// namesOfTests returns the names of all test functions of the repository.
func namesOfTests(t *testing.T) map[string]bool {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	names := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != "..": // what others wrote: .git, and what the tests install
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, found := range function.FindAllStringSubmatch(string(text), -1) {
			names[found[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// idsOfCases returns the ids of all cases in tests/cases.
func idsOfCases(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("cases/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no cases: %v", err)
	}
	ids := map[string]bool{}
	for _, file := range files {
		for _, c := range readCases(t, file) {
			ids[c.ID] = true
		}
	}
	return ids
}
