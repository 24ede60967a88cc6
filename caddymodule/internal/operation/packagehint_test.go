package operation

import (
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation/hint"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
)

func TestPackageHints(t *testing.T) {
	t.Parallel()
	rules, err := policy.New(policy.Config{Block: []string{"humanize"}})
	if err != nil {
		t.Fatal(err)
	}
	installs := &Installs{Runner: &install.Installs{}, Policy: rules}
	can, cannot := installs.Hints(), (&Installs{}).Hints()
	kernel := installs.KernelHints(func() int { return 2 })
	for _, c := range []struct {
		name, got string
		want      []string // parts of it; none for no hint at all
	}{
		{"a module", can.Module("cv2"), []string{"The module cv2 comes with the package opencv-python", `{"package": "opencv-python"}`, "run the code again."}},
		{"a module that nobody knows", can.Module("no_such_thing_at_all"), []string{"If a package provides it"}},
		{"a module of Python", can.Module("tkinter"), nil},
		{"a module of a blocked package", can.Module("humanize"), []string{"may not be installed here"}},
		{"nothing can be installed", cannot.Module("cv2"), []string{"does not install packages"}},
		{"a package", can.Requirements([]string{"pydantic[email]"}), []string{`{"package": "pydantic[email]"}`}},
		{"no package", can.Requirements([]string{"--index-url", "../x", "https://x.org/a.whl", "a b", strings.Repeat("x", 200)}), nil},
		{"a package where nothing can be installed", cannot.Requirements([]string{"kaleido"}), []string{"does not install packages"}},
		{"pip", can.Pip([]string{"rich>=13", "tabulate", "pip"}), []string{"no network", `{"package": "rich>=13"} and with {"package": "tabulate"}, then run the code again without it.`}},
		{"pip, of unknown packages", can.Pip([]string{"$x"}), []string{"no network", "with the package's name"}},
		{"pip, of a blocked package", can.Pip([]string{"humanize"}), []string{"no network", "may not be installed here"}},
		{"pip where nothing can be installed", cannot.Pip([]string{"rich"}), []string{"no network", "does not install packages"}},
		{"a kernel", kernel(2).Module("cv2"), []string{`{"package": "opencv-python"}`, "restart this kernel"}},
		{"a kernel that is behind", kernel(1).Module("cv2"), []string{"Packages have been installed since", "If cv2 is still missing"}},
	} {
		if len(c.want) == 0 && c.got != "" {
			t.Errorf("%s: got %q", c.name, c.got)
		}
		for _, part := range c.want {
			if !strings.Contains(c.got, part) {
				t.Errorf("%s: got %q, want %q in it", c.name, c.got, part)
			}
		}
	}
	var _ hint.Packages = can
}
