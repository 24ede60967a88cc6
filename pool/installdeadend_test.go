package pool

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// A package needs one that has no wheel. The message names that dependency, however pip's search for another version ends: with a version
// that lacks the extra, with too many versions to try, with too many bytes downloaded, or without a result.
func TestPackageThatNeedsOneWithoutWheel(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 1, Templates: 1})
	server, ask := newTestIndex(t)
	// The index serves no metadata files, so pip must download each wheel that it looks at.
	server.Add(index.Project{Name: "sbx-source", Files: []index.File{index.Sdist{Name: "sbx-source", Version: "1.5"}.File()}})
	project := func(name string, versions int, wheel func(n int) index.Wheel) {
		var files []index.File
		for n := range versions {
			w := wheel(n)
			w.Name, w.Version = name, fmt.Sprintf("%d.0", n)
			file := w.File()
			file.NoMetadata = true
			if name == "sbx-slow" {
				file.Delay = 2500 * time.Millisecond
			}
			files = append(files, file)
		}
		server.Add(index.Project{Name: name, Files: files})
	}
	needy := func(n int) index.Wheel {
		return index.Wheel{Extras: []string{"more"}, Requires: []string{`sbx-source>=1; extra == "more"`}}
	}
	project("sbx-few", 2, func(n int) index.Wheel {
		if n == 0 {
			return index.Wheel{}
		}
		return needy(n)
	})
	project("sbx-lots", 100, needy)
	project("sbx-heavy", 30, func(n int) index.Wheel {
		w := needy(n)
		w.Padding = 2 * mib
		return w
	})
	project("sbx-slow", 30, needy)
	project("sbx-plain", 3, func(int) index.Wheel { return index.Wheel{Requires: []string{"sbx-source"}} })
	project("sbx-deep", 3, func(int) index.Wheel { return index.Wheel{Requires: []string{"sbx-plain"}} })
	project("sbx-old", 3, func(n int) index.Wheel {
		if n == 0 {
			return index.Wheel{}
		}
		return index.Wheel{Requires: []string{"sbx-source"}}
	})

	for _, c := range []struct {
		name   string
		extras []string
		looks  int // how many wheels pip may download at most
		words  []string
	}{
		{"sbx-few", []string{"more"}, 2, []string{"sbx-few[more] 1.0 needs sbx-source>=1", "source only", "Ask for sbx-few alone"}},
		{"sbx-lots", []string{"more"}, 10, []string{"sbx-lots[more] 99.0 needs sbx-source>=1", "source only"}},
		{"sbx-heavy", []string{"more"}, 4, []string{"sbx-heavy[more] 29.0 needs sbx-source>=1"}},
		{"sbx-slow", []string{"more"}, 5, []string{"sbx-slow[more] 29.0 needs sbx-source>=1"}},
		{"sbx-plain", nil, 3, []string{"sbx-plain 2.0 needs sbx-source,", "sdist allow", "Ask for another version"}},
		{"sbx-deep", nil, 6, []string{"sbx-plain 2.0 needs sbx-source,"}},
	} {
		before := server.WheelDownloads()
		req := ask(c.name, "")
		req.Extras, req.Timeout = c.extras, 16*time.Second
		r := installPackage(t, p, req, install.NoWheel)
		for _, word := range c.words {
			if !strings.Contains(r.Message, word) {
				t.Errorf("%s: %q lacks %q", c.name, r.Message, word)
			}
		}
		if looked := server.WheelDownloads() - before; looked > c.looks {
			t.Errorf("%s: %d wheels were fetched", c.name, looked)
		}
	}
	// If an older version does not have the requirement, pip's choice of that version is installed.
	if r := installPackage(t, p, ask("sbx-old", ""), install.Installed); r.Version != "0.0" {
		t.Errorf("got %+v", r)
	}
	if r := installPackage(t, p, ask("sbx-few", ""), install.Installed); r.Version != "1.0" {
		t.Errorf("got %+v", r)
	}
}

// For two packages of which all versions conflict, the search for versions ends long before the install's timeout.
func TestEndlessConflictEnds(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 1, Templates: 1})
	server, ask := newTestIndex(t)
	var left, right, shared []index.File
	for n := range 60 {
		version := fmt.Sprintf("%d.0", n)
		left = append(left, index.Wheel{Name: "sbx-left", Version: version, Requires: []string{fmt.Sprintf("sbx-shared==%d.0", 2*n)}}.File())
		right = append(right, index.Wheel{Name: "sbx-right", Version: version, Requires: []string{fmt.Sprintf("sbx-shared==%d.0", 2*n+1)}}.File())
	}
	for n := range 120 {
		shared = append(shared, index.Wheel{Name: "sbx-shared", Version: fmt.Sprintf("%d.0", n)}.File())
	}
	server.Add(index.Project{Name: "sbx-left", Files: left})
	server.Add(index.Project{Name: "sbx-right", Files: right})
	server.Add(index.Project{Name: "sbx-shared", Files: shared})
	server.AddWheels(index.Wheel{Name: "sbx-both", Version: "1.0", Requires: []string{"sbx-left", "sbx-right"}})
	r := installPackage(t, p, ask("sbx-both", ""), install.Conflict)
	if !strings.Contains(r.Message, "sbx-left 59.0 needs sbx-shared==118.0; sbx-right 59.0 needs sbx-shared==119.0") {
		t.Errorf("got %s", r.Message)
	}
}
