package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The table of folders in CONTRIBUTING.md names what is there: a row for each package, and none for a folder that is gone. A row stands for
// what is below it too, except in the two whose parts have rows of their own.
func TestContributingNamesEachPackage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Where things are")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (.*?) \|`).FindAllStringSubmatch(table, -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			rows[name[1]] = true
			if stat, err := os.Stat(filepath.Join("..", name[1])); err != nil || !stat.IsDir() {
				t.Errorf("CONTRIBUTING.md has a row for %s, which is no folder", name[1])
			}
		}
	}
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.Lines(string(out)) {
		name, err := filepath.Rel(root, strings.TrimSpace(dir))
		if err != nil {
			t.Fatal(err)
		}
		found := rows[name]
		for above := filepath.Dir(name); above != "." && !found; above = filepath.Dir(above) {
			found = rows[above] && above != "caddymodule" && above != "pool"
		}
		if !found {
			t.Errorf("CONTRIBUTING.md has no row for %s", name)
		}
	}
}
