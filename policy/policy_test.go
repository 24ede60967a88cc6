package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func newPolicy(t *testing.T, config Config) *Policy {
	t.Helper()
	p, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parse(t *testing.T, pkg, version string) Requirement {
	t.Helper()
	requirement, err := ParseRequirement(pkg, version)
	if err != nil {
		t.Fatal(err)
	}
	return requirement
}

// checkDecision checks what must be true of every decision.
func checkDecision(t *testing.T, d Decision) {
	t.Helper()
	switch {
	case d.Allowed && (d.Rule != RuleNone || d.Message != "" || d.Resembles != ""):
		t.Errorf("an objection to what is allowed: %+v", d)
	case !d.Allowed && (!slices.Contains(Rules, d.Rule) || d.Message == ""):
		t.Errorf("a refusal without a rule or a message: %+v", d)
	case !d.Allowed && (len(d.Message) > 600 || !strings.Contains(d.Message, d.Package)):
		t.Errorf("a message that is long, or does not name the package: %+v", d)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		config    Config
		pkg       string
		rule      Rule
		says      string
		resembles string
	}{
		{Config{}, "requests", RuleNone, "", ""},
		{Config{}, "Flask_SQLAlchemy[x]", RuleNone, "", ""},
		{Config{}, "some-package-that-resembles-nothing", RuleNone, "", ""},
		{Config{}, "os", RuleStandardLibrary, "import it, there is nothing to install", ""},
		{Config{}, "subprocess", RuleStandardLibrary, "import it", ""},
		{Config{}, "dataclasses", RuleStandardLibrary, "import it", ""},
		{Config{Allow: []string{"json"}}, "json", RuleStandardLibrary, "import it", ""},
		{Config{}, "Telnetlib", RuleStandardLibrary, `until 3.13, which removed it: import it on an older Python, or ask for "standard-telnetlib"`, ""},
		{Config{}, "imp", RuleStandardLibrary, "until 3.12, which removed it: no package", ""},
		{Config{}, "standard-telnetlib", RuleNone, "", ""},
		{Config{Block: []string{"Requests"}}, "requests", RuleBlocklist, "blocklist", ""},
		{Config{Block: []string{"requests"}, Allow: []string{"requests"}, Trust: []string{"requests"}}, "requests", RuleBlocklist, "", ""},
		{Config{}, "python3-dateutil", RuleMalicious, `did you mean "python-dateutil"?`, "python-dateutil"},
		{Config{}, "jeIlyfish", RuleMalicious, `did you mean "jellyfish"?`, "jellyfish"},
		{Config{}, "colourama", RuleMalicious, "listed as malicious", "colorama"},
		{Config{Trust: []string{"colourama"}}, "colourama", RuleMalicious, "listed as malicious", "colorama"},
		{Config{Allow: []string{"colourama"}}, "colourama", RuleMalicious, "listed as malicious", "colorama"},
		{Config{}, "acqusition", RuleMalicious, "use another package", ""},
		{Config{}, "pip", RuleInstaller, "not replaced by a request", ""},
		{Config{}, "setuptools", RuleInstaller, "", ""},
		{Config{}, "uv", RuleInstaller, "", ""},
		{Config{Allow: []string{"setuptools"}}, "setuptools", RuleNone, "", ""},
		{Config{Allow: []string{"numpy"}}, "setuptools", RuleInstaller, "", ""},
		{Config{Allow: []string{"NumPy"}}, "numpy", RuleNone, "", ""},
		{Config{Allow: []string{"numpy"}}, "requests", RuleAllowlist, `"packages { allow requests }"`, ""},
		{Config{}, "reqeusts", RuleTyposquat, `did you mean that?`, "requests"},
		{Config{}, "panddas", RuleTyposquat, `"panddas" resembles the popular package "pandas": did you mean that? If it is meant, the operator can allow it with "packages { trust panddas }".`, "pandas"},
		{Config{Trust: []string{"Panddas"}}, "panddas", RuleNone, "", ""},
		{Config{Allow: []string{"panddas"}}, "panddas", RuleNone, "", ""},
		{Config{}, "cv2", RuleTyposquat, `"cv2" is what code imports, and the package that provides it is "opencv-python"`, "opencv-python"},
		{Config{}, "pil", RuleTyposquat, `"PIL" is what code imports`, "pillow"},
		{Config{Trust: []string{"pil"}}, "pil", RuleNone, "", ""},
	} {
		p := newPolicy(t, test.config)
		d := p.Check(parse(t, test.pkg, ""))
		if d.Rule != test.rule || d.Allowed != (test.rule == RuleNone) || !strings.Contains(d.Message, test.says) || d.Resembles != test.resembles {
			t.Errorf("%+v: %s: %+v; want %q ... %q, resembling %q", test.config, test.pkg, d, test.rule, test.says, test.resembles)
		}
		if d.Allowed {
			checkDecision(t, d)
		}
		if d.Package != Canonical(strings.TrimSuffix(test.pkg, "[x]")) {
			t.Errorf("%s: the decision is about %q", test.pkg, d.Package)
		}
	}
}

func wheel(name string) Resolved {
	return Resolved{Name: name, Version: "1.0", DownloadBytes: 1000, Hashed: true, Wheel: true}
}

func with(r Resolved, change func(*Resolved)) Resolved {
	change(&r)
	return r
}

func TestCheckResolved(t *testing.T) {
	t.Parallel()
	requests := wheel("requests")
	many := []Resolved{requests}
	for i := range 200 {
		many = append(many, wheel(fmt.Sprint("dependency-", i)))
	}
	sdist := func(r *Resolved) { r.Wheel = false }
	unhashed := func(r *Resolved) { r.Hashed = false }
	yanked := func(r *Resolved) { r.Yanked = true }
	direct := func(r *Resolved) { r.Direct = true }
	size := func(bytes int64) func(*Resolved) { return func(r *Resolved) { r.DownloadBytes = bytes } }

	for name, test := range map[string]struct {
		config  Config
		version string
		set     []Resolved
		rule    Rule
		about   string
		says    string
	}{
		"fine":                     {Config{}, "", []Resolved{requests, wheel("idna"), wheel("Charset_Normalizer")}, RuleNone, "requests", ""},
		"nothing to install":       {Config{}, "", nil, RuleNone, "requests", ""},
		"what was asked for":       {Config{Block: []string{"requests"}}, "", []Resolved{requests}, RuleBlocklist, "requests", ""},
		"blocked dependency":       {Config{Block: []string{"idna"}}, "", []Resolved{requests, wheel("IDNA")}, RuleBlocklist, "idna", `"requests" needs "idna", which is on the blocklist`},
		"seed of the blocklist":    {Config{}, "", []Resolved{requests, wheel("ctypes")}, RuleBlocklist, "ctypes", ""},
		"malicious dependency":     {Config{}, "", []Resolved{requests, wheel("jeilyfish")}, RuleMalicious, "jeilyfish", `did you mean "jellyfish"?`},
		"standard library":         {Config{}, "", []Resolved{requests, wheel("json")}, RuleStandardLibrary, "json", "named like a module"},
		"backport":                 {Config{}, "", []Resolved{requests, wheel("dataclasses"), wheel("typing")}, RuleNone, "requests", ""},
		"installer":                {Config{}, "", []Resolved{requests, wheel("setuptools"), wheel("pip")}, RuleNone, "requests", ""},
		"similar name":             {Config{}, "", []Resolved{requests, wheel("panddas")}, RuleNone, "requests", ""},
		"allowlist":                {Config{Allow: []string{"requests", "idna"}}, "", []Resolved{requests, wheel("idna")}, RuleNone, "requests", ""},
		"not on the allowlist":     {Config{Allow: []string{"requests"}}, "", []Resolved{requests, wheel("idna")}, RuleAllowlist, "idna", `"requests" needs "idna", which is not on the operator's allowlist`},
		"too many":                 {Config{}, "", many, RuleCount, "requests", "201 packages together, and at most 200"},
		"as many as by default":    {Config{}, "", many[:200], RuleNone, "requests", ""},
		"more by config":           {Config{MaxPackages: 201}, "", many, RuleNone, "requests", ""},
		"fewer by config":          {Config{MaxPackages: 1}, "", many[:2], RuleCount, "requests", ""},
		"sdist":                    {Config{}, "", []Resolved{with(requests, sdist)}, RuleSdist, "requests", "has a wheel"},
		"sdist dependency":         {Config{}, "", []Resolved{requests, with(wheel("idna"), sdist)}, RuleSdist, "idna", `"requests" needs "idna" "1.0", which is offered as a source`},
		"sdist by config":          {Config{SdistAllowed: true}, "", []Resolved{with(requests, sdist)}, RuleNone, "requests", ""},
		"no hash":                  {Config{}, "", []Resolved{with(requests, unhashed)}, RuleHash, "requests", "no hash"},
		"no hash for an sdist":     {Config{SdistAllowed: true}, "", []Resolved{with(with(requests, sdist), unhashed)}, RuleHash, "requests", ""},
		"yanked":                   {Config{}, "", []Resolved{with(requests, yanked)}, RuleYanked, "requests", "another version"},
		"yanked in a range":        {Config{}, "==1.*", []Resolved{with(requests, yanked)}, RuleYanked, "requests", ""},
		"yanked, asked for as is":  {Config{}, "1.0", []Resolved{with(requests, yanked)}, RuleNone, "requests", ""},
		"yanked dependency":        {Config{}, "1.0", []Resolved{requests, with(wheel("idna"), yanked)}, RuleYanked, "idna", ""},
		"direct dependency":        {Config{}, "", []Resolved{requests, with(wheel("idna"), direct)}, RuleDirect, "idna", `"requests" needs "idna" from an address of its own`},
		"download in bounds":       {Config{MaxDownloadBytes: 2000}, "", []Resolved{requests, wheel("idna")}, RuleNone, "requests", ""},
		"download out of bounds":   {Config{MaxDownloadBytes: 1999}, "", []Resolved{requests, wheel("idna")}, RuleDownloadSize, "requests", "2.0 KiB to download"},
		"unknown size":             {Config{MaxDownloadBytes: 1000}, "", []Resolved{requests, with(wheel("idna"), size(-1))}, RuleNone, "requests", ""},
		"sizes that would overrun": {Config{MaxDownloadBytes: 1000}, "", []Resolved{with(requests, size(math.MaxInt64)), with(wheel("idna"), size(math.MaxInt64)), with(wheel("a"), size(2))}, RuleDownloadSize, "requests", ""},
		"no bound":                 {Config{}, "", []Resolved{with(requests, size(math.MaxInt64)), with(wheel("idna"), size(math.MaxInt64))}, RuleNone, "requests", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newPolicy(t, test.config).CheckResolved(parse(t, "requests", test.version), test.set)
			checkDecision(t, d)
			if d.Rule != test.rule || d.Allowed != (test.rule == RuleNone) || d.Package != test.about || !strings.Contains(d.Message, test.says) {
				t.Errorf("%+v; want %q about %q ... %q", d, test.rule, test.about, test.says)
			}
		})
	}
}

func TestCheckInstalledSize(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, Config{MaxInstalledBytes: 1 << 30})
	for bytes, want := range map[int64]Rule{0: RuleNone, 1 << 30: RuleNone, 1<<30 + 1: RuleInstalledSize} {
		d := p.CheckInstalledSize(bytes)
		checkDecision(t, d)
		if d.Rule != want || d.Allowed != (want == RuleNone) {
			t.Errorf("%d bytes: %+v", bytes, d)
		}
	}
	if d := newPolicy(t, Config{}).CheckInstalledSize(math.MaxInt64); !d.Allowed {
		t.Errorf("no bound: %+v", d)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for says, config := range map[string]Config{
		`packages block "a b" is not`:         {Block: []string{"a b"}},
		`packages allow "requests==1" is not`: {Allow: []string{"numpy", "requests==1"}},
		`packages trust "" is not`:            {Trust: []string{""}},
		"packages max_download is -1":         {MaxDownloadBytes: -1},
		"packages max_installed is -1":        {MaxInstalledBytes: -1},
		"packages count is -1":                {MaxPackages: -1},
	} {
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v; want %q", config, err, says)
		}
	}
}

func TestRulesAreDistinct(t *testing.T) {
	t.Parallel()
	sorted := slices.Sorted(slices.Values(Rules))
	if len(slices.Compact(sorted)) != len(Rules) || slices.Contains(Rules, RuleNone) {
		t.Errorf("Rules has a rule twice, or none: %q", Rules)
	}
}
