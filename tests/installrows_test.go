package tests

import (
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/tests/index"
)

// installRow is one install with what must come of it.
type installRow struct {
	name, pkg, version string
	status             string
	// installed is the version that must be there then.
	installed string
	// says are words of the message, in any case; some pips know less, and then it is one of several with | between.
	says []string
	// rule is in the log when the package is blocked.
	rule string
	// more are the others that must be in packages, as "name version".
	more []string
	// again says that the package itself was there already.
	again bool
	// unfetched says that no wheel may have been asked for.
	unfetched bool
	// then is a program that must print "right\n".
	then string
}

// installRows are to be made in their order.
var installRows = []installRow{
	{name: "one version", pkg: "sbx-one", status: "installed", installed: "1.0", says: []string{"installed sbx-one 1.0", "next execution"}, then: has("sbx_one 1.0")},
	{name: "again", pkg: "Sbx_One", version: "latest", status: "already_installed", installed: "1.0", says: []string{"installed already"}, then: has("sbx_one 1.0")},
	{name: "a version", pkg: "sbx-many", version: "1.5", status: "installed", installed: "1.5", then: has("sbx_many 1.5")},
	{name: "any will do", pkg: "sbx-many", status: "already_installed", installed: "1.5"},
	{name: "the latest of a range, no pre-release", pkg: "sbx-many", version: ">1.5", status: "installed", installed: "2.0", then: has("sbx_many 2.0")},
	{name: "a pre-release by its name", pkg: "sbx-many", version: "3.0rc1", status: "installed", installed: "3.0rc1", then: has("sbx_many 3.0rc1")},
	{name: "an older one", pkg: "sbx-many", version: "1.0", status: "installed", installed: "1.0", then: has("sbx_many 1.0")},
	{name: "a chain", pkg: "sbx-chain-a", status: "installed", installed: "1.0", more: []string{"sbx-chain-b 1.1", "sbx-chain-c 1.2"},
		says: []string{"sbx-chain-b 1.1"}, then: has("sbx_chain_a 1.0", "sbx_chain_b 1.1", "sbx_chain_c 1.2")},
	{name: "without the extra", pkg: "Sbx.Extra", status: "installed", installed: "1.0",
		then: "import sbx_extra\ntry:\n import sbx_extra_needs\nexcept ImportError: print('right')"},
	{name: "with the extra", pkg: "sbx-extra[more]", status: "installed", installed: "1.0", again: true, more: []string{"sbx-extra-needs 1.3"}, then: has("sbx_extra 1.0", "sbx_extra_needs 1.3")},
	{name: "with the extra, again", pkg: "sbx-extra[more]", status: "already_installed", installed: "1.0"},
	{name: "a part of a namespace", pkg: "sbx-part-a", status: "installed", installed: "1.0", then: "import sbx_space.a; print('right')"},
	{name: "another part of it", pkg: "sbx-part-b", status: "installed", installed: "1.0", then: "import sbx_space.a, sbx_space.b; print('right')"},
	{name: "a pin", pkg: "sbx-pin", status: "installed", installed: "1.0", more: []string{"sbx-base 1.0"}, then: has("sbx_pin 1.0", "sbx_base 1.0")},

	{name: "what does not go together", pkg: "sbx-clash", unfetched: true, status: "conflict", says: []string{"sbx-left 1.0 depends on sbx-shared==1.0", "sbx-right 1.0", "nothing has changed"}},
	{name: "what breaks an installed one", pkg: "sbx-base", version: "2.0", status: "conflict", says: []string{"sbx-pin", "sbx-base<2"}, then: has("sbx_base 1.0")},
	{name: "what needs what breaks an installed one", pkg: "sbx-wants-base-two", status: "conflict", says: []string{"sbx-pin", "sbx-base<2"}, then: has("sbx_base 1.0")},
	{name: "a newer Python", pkg: "sbx-newer", unfetched: true, status: "conflict", says: []string{"python >=3.99", "this is python 3."}},

	{name: "a version to stay with", pkg: "sbx-lib", version: "1.0", status: "installed", installed: "1.0"},
	{name: "what needs another than that", pkg: "sbx-lib-user", unfetched: true, status: "conflict", says: []string{"sbx-lib==1.0", "sbx-lib>=2"}, then: has("sbx_lib 1.0")},
	{name: "another version to stay with", pkg: "sbx-lib", version: ">=1.0,!=1.0", status: "installed", installed: "2.0"},
	{name: "what needs that", pkg: "sbx-lib-user", status: "installed", installed: "1.0", then: has("sbx_lib 2.0", "sbx_lib_user 1.0")},

	{name: "no such package", pkg: "sbx-missing", status: "not_found", says: []string{`no package named "sbx-missing"`, "spelling"}},
	{name: "no such version", pkg: "sbx-many", version: "7.0", status: "not_found", says: []string{"sbx-many", "==7.0", "1.0, 1.5, 2.0"}},
	{name: "nothing in the range", pkg: "sbx-many", version: ">=4,<5", status: "not_found", says: []string{"1.0, 1.5, 2.0"}},
	{name: "a dependency that is not there", pkg: "sbx-incomplete", status: "not_found", says: []string{"sbx-nowhere"}},
	{name: "withdrawn", pkg: "sbx-yanked", unfetched: true, status: "not_found", says: []string{"withdrawn", "1.0"}},
	{name: "withdrawn, as a dependency", pkg: "sbx-needs-yanked", status: "blocked", rule: "yanked", says: []string{"sbx-yanked", "withdrawn"}},
	{name: "withdrawn, by its version", pkg: "sbx-yanked", version: "1.0", status: "installed", installed: "1.0", then: has("sbx_yanked 1.0")},
	// As PEP 440 and pip have it: what else is there to choose?
	{name: "nothing but a pre-release", pkg: "sbx-only-pre", status: "installed", installed: "1.0b1", then: has("sbx_only_pre 1.0b1")},

	{name: "source only", pkg: "sbx-source", unfetched: true, status: "no_wheel", says: []string{"source", "sdist allow"}},
	{name: "what needs source only", pkg: "sbx-needs-source", unfetched: true, status: "no_wheel", says: []string{"needs sbx-source>=1", "source only", "sdist allow"}},
	{name: "whose extra needs source only", pkg: "sbx-extra-source[more]", unfetched: true, status: "no_wheel", says: []string{"sbx-extra-source[more] 2.0 needs sbx-source", "sbx-extra-source alone"}},
	{name: "another system", pkg: "sbx-foreign", unfetched: true, status: "no_wheel", says: []string{"other systems", "python 3."}},
	{name: "another Python", pkg: "sbx-old-abi", status: "no_wheel", says: []string{"other python", "python 3."}},

	{name: "announced as huge", pkg: "sbx-huge", unfetched: true, status: "too_large", says: []string{"300 mib|larger", "20 mib|20.0 mib", "max_download"}},
	{name: "huge without saying so", pkg: "sbx-huge-silent", status: "too_large", says: []string{"20 mib|20.0 mib", "max_download"}},
	{name: "within all that may be installed", pkg: "sbx-fat-a", status: "installed", installed: "1.0"},
	{name: "beyond it", pkg: "sbx-fat-b", status: "too_large", says: []string{"max_installed", "100", "120"}},
	{name: "a bomb", pkg: "sbx-bomb", status: "too_large", says: []string{"100", "max_installed"}},

	{name: "another file than announced", pkg: "sbx-hash", status: "failed", says: []string{"sha-256|hash", "thrown away", "try again"}},
	{name: "a part of a file", pkg: "sbx-short", status: "failed", says: []string{"closed the connection|hash", "try again"}},
	{name: "announced and not there", pkg: "sbx-gone", status: "failed", says: []string{"does not have|404", "sbx_gone-1.0"}},
	{name: "sent elsewhere", pkg: "sbx-moved", status: "failed", says: []string{"elsewhere.invalid", "hosts"}},
	{name: "sent elsewhere for its metadata", pkg: "sbx-moved-early", status: "failed", says: []string{"elsewhere.invalid", "hosts"}},
	{name: "without a hash", pkg: "sbx-unhashed", status: "blocked", rule: "hash", says: []string{"no hash"}},

	{name: "a path that leads up", pkg: "sbx-up", status: "failed", says: []string{"../sbx_up.py", "leads outside"}},
	{name: "an absolute path", pkg: "sbx-absolute", status: "failed", says: []string{"/tmp/sbx_absolute.py", "absolute"}},
	{name: "a link", pkg: "sbx-link", status: "failed", says: []string{"sbx_link_to", "symbolic link"}},
	{name: "names that differ in case", pkg: "sbx-case", status: "failed", says: []string{"SBX_case.py", "upper and lower case"}},
	{name: "a module of the standard library", pkg: "sbx-shadow", status: "failed", says: []string{`"json"`, "standard library"}, then: "import json; print('right' if 'dumps' in dir(json) else json)"},
	{name: "sitecustomize", pkg: "sbx-customize", status: "failed", says: []string{"sitecustomize"}, then: "import sys; print('wrong' if 'sitecustomize' in sys.modules and hasattr(sys.modules['sitecustomize'], 'x') else 'right')"},
	{name: "a file that RECORD lacks", pkg: "sbx-unlisted", status: "failed", says: []string{"RECORD", "sbx_unlisted_more.py"}},
	{name: "a file that RECORD has another hash of", pkg: "sbx-record", status: "failed", says: []string{"RECORD", "hash"}},
	{name: "metadata of another package", pkg: "sbx-forged", status: "failed", says: []string{"METADATA", "sbx-other"}},
	{name: ".pth", pkg: "sbx-pth", status: "installed", installed: "1.0", then: `import subprocess, sys, sbx_pth, os
site = os.path.dirname(sbx_pth.__file__)
out = subprocess.run([sys.executable, "-c", "import sbx_pth"], capture_output=True, text=True)
print("right" if (out.stdout, out.stderr) == ("", "") and not [n for n in os.listdir(site) if n.endswith(".pth")] else (out, os.listdir(site)))`},

	{name: "os", pkg: "os", status: "blocked", rule: "standard_library", says: []string{"standard library", "import it"}},
	{name: "pip", pkg: "pip", status: "blocked", rule: "installer", says: []string{"installs other packages"}},
	{name: "a slip", pkg: "reqeusts", status: "blocked", rule: "typosquat", says: []string{"requests", "did you mean", "trust reqeusts"}},
	{name: "another slip", pkg: "pandsa", status: "blocked", rule: "malicious", says: []string{"pandas", "malicious", "did you mean"}},
	{name: "a module's name", pkg: "cv2", status: "blocked", rule: "typosquat", says: []string{"opencv-python"}},
	{name: "blocked by the operator", pkg: "SBX_evil", status: "blocked", rule: "blocklist", says: []string{"blocklist"}},
	{name: "a dependency that is blocked", pkg: "sbx-needs-evil", unfetched: true, status: "blocked", rule: "blocklist", says: []string{"sbx-needs-evil", "sbx-evil", "blocklist"}},
	{name: "a dependency at an address of its own", pkg: "sbx-direct", status: "blocked", rule: "direct", says: []string{"sbx-direct-target", "address of its own"}},
	{name: "a dependency at an address abroad", pkg: "sbx-direct-abroad", status: "failed", says: []string{"elsewhere.invalid"}},
}

// has is a program that prints "right" when modules of these versions can be imported.
func has(versions ...string) string {
	var b strings.Builder
	for _, v := range versions {
		name, version, _ := strings.Cut(v, " ")
		fmt.Fprintf(&b, "import %[1]s\nassert %[1]s.__version__ == %[2]q, %[1]s.__version__\n", name, version)
	}
	return b.String() + "print('right')"
}

const mebibyte = 1 << 20

// broken are files that no honest index has. Each is the only one of its project.
func broken(x *index.Server) {
	file := func(w index.Wheel, change func(*index.File)) {
		w.Version = "1.0"
		f := w.File()
		change(&f)
		x.Add(index.Project{Name: w.Name, Files: []index.File{f}})
	}
	raw := func(name string, entries ...index.RawEntry) index.Wheel { return index.Wheel{Name: name, Raw: entries} }
	asItIs := func(*index.File) {}
	file(index.Wheel{Name: "sbx-hash"}, func(f *index.File) { f.HashWrong = true })
	file(index.Wheel{Name: "sbx-short", Padding: 100_000}, func(f *index.File) { f.Truncate = 50_000 })
	file(index.Wheel{Name: "sbx-gone"}, func(f *index.File) { f.Status = http.StatusNotFound })
	file(index.Wheel{Name: "sbx-moved"}, func(f *index.File) { f.RedirectTo = "http://elsewhere.invalid/sbx_moved-1.0-py3-none-any.whl" })
	file(index.Wheel{Name: "sbx-moved-early"}, func(f *index.File) {
		f.RedirectTo, f.NoMetadata = "http://elsewhere.invalid/sbx_moved_early-1.0-py3-none-any.whl", true
	})
	file(index.Wheel{Name: "sbx-unhashed"}, func(f *index.File) { f.NoHash = true })
	file(index.Wheel{Name: "sbx-huge"}, func(f *index.File) { f.Metadata, f.Content, f.Stream = metadataOf("sbx-huge"), nil, 300*mebibyte })
	file(index.Wheel{Name: "sbx-huge-silent"}, func(f *index.File) {
		f.Metadata, f.Content, f.Stream, f.NoSize, f.Chunked = metadataOf("sbx-huge-silent"), nil, 300*mebibyte, true, true
	})
	file(raw("sbx-bomb", index.RawEntry{Name: "sbx_bomb_data", Zeros: 101 * mebibyte}), asItIs)
	file(raw("sbx-up", index.RawEntry{Name: "../sbx_up.py", Content: "x = 1\n", InRecord: true}), asItIs)
	file(raw("sbx-absolute", index.RawEntry{Name: "/tmp/sbx_absolute.py", Content: "x = 1\n", InRecord: true}), asItIs)
	file(raw("sbx-link", index.RawEntry{Name: "sbx_link_to", Content: "/etc/passwd", Mode: fs.ModeSymlink | 0o777, InRecord: true}), asItIs)
	file(raw("sbx-case", index.RawEntry{Name: "SBX_case.py", Content: "x = 1\n", InRecord: true}), asItIs)
	file(raw("sbx-shadow", index.RawEntry{Name: "json/__init__.py", Content: "x = 1\n", InRecord: true}), asItIs)
	file(raw("sbx-customize", index.RawEntry{Name: "sitecustomize.py", Content: "x = 1\n", InRecord: true}), asItIs)
	file(raw("sbx-unlisted", index.RawEntry{Name: "sbx_unlisted_more.py", Content: "x = 1\n"}), asItIs)
	file(index.Wheel{Name: "sbx-record", WrongRecord: true}, asItIs)
	file(index.Wheel{Name: "sbx-forged", MetadataName: "sbx-other"}, func(f *index.File) { f.Metadata = metadataOf("sbx-forged") })
}

func metadataOf(name string) []byte {
	return []byte("Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n")
}

// honest is what real indexes have.
func honest(x *index.Server) {
	at := func(name, version string, requires ...string) index.Wheel {
		return index.Wheel{Name: name, Version: version, Requires: requires}
	}
	yanked := func(w index.Wheel, reason string) index.File {
		f := w.File()
		f.Yanked, f.YankedReason = true, reason
		return f
	}
	x.AddWheels(
		at("sbx-one", "1.0"), at("sbx-direct-target", "1.0"),
		at("sbx-many", "1.0"), at("sbx-many", "1.5"), at("sbx-many", "2.0"), at("sbx-many", "3.0rc1"),
		at("sbx-chain-a", "1.0", "sbx-chain-b>=1"), at("sbx-chain-b", "1.1", "sbx-chain-c"), at("sbx-chain-c", "1.2"),
		index.Wheel{Name: "Sbx.Extra", Version: "1.0", Extras: []string{"more"}, Requires: []string{`sbx-extra-needs; extra == "more"`}},
		at("sbx-extra-needs", "1.3"),
		at("sbx-clash", "1.0", "sbx-left", "sbx-right"), at("sbx-left", "1.0", "sbx-shared==1.0"), at("sbx-right", "1.0", "sbx-shared==2.0"),
		at("sbx-shared", "1.0"), at("sbx-shared", "2.0"),
		at("sbx-pin", "1.0", "sbx-base<2"), at("sbx-base", "1.0"), at("sbx-base", "2.0"), at("sbx-wants-base-two", "1.0", "sbx-base>=2"),
		at("sbx-only-pre", "1.0b1"),
		at("sbx-lib", "1.0"), at("sbx-lib", "2.0"), at("sbx-lib-user", "1.0", "sbx-lib>=2"),
		index.Wheel{Name: "sbx-fat-a", Version: "1.0", Raw: []index.RawEntry{{Name: "sbx_fat_a_data", Zeros: 60 * mebibyte, InRecord: true}}},
		index.Wheel{Name: "sbx-fat-b", Version: "1.0", Raw: []index.RawEntry{{Name: "sbx_fat_b_data", Zeros: 60 * mebibyte, InRecord: true}}},
		index.Wheel{Name: "sbx-part-a", Version: "1.0", Files: map[string]string{"sbx_space/a.py": ""}},
		index.Wheel{Name: "sbx-part-b", Version: "1.0", Files: map[string]string{"sbx_space/b.py": ""}},
		index.Wheel{Name: "sbx-newer", Version: "1.0", RequiresPython: ">=3.99"},
		index.Wheel{Name: "sbx-foreign", Version: "1.0", Tag: "cp311-cp311-win_amd64"},
		index.Wheel{Name: "sbx-old-abi", Version: "1.0", Tag: "cp27-cp27m-manylinux1_x86_64"},
		at("sbx-incomplete", "1.0", "sbx-nowhere>=1"),
		index.Wheel{Name: "sbx-pth", Version: "1.0", Files: map[string]string{
			"sbx_pth.py":  "__version__ = '1.0'\n",
			"sbx_pth.pth": "import sys; sys.stdout.write('a .pth ran'); sys.stdout.flush()\n",
			"a/b.pth":     "data\n",
		}},
		// Blocked, one way or another.
		at("sbx-evil", "1.0"), at("sbx-needs-evil", "1.0", "sbx-evil"), at("reqeusts", "1.0"), at("os", "1.0"), at("pip", "99.0"),
		at("cv2", "1.0"),
		at("sbx-direct", "1.0", "sbx-direct-target @ "+x.FileURL("sbx_direct_target-1.0-py3-none-any.whl")),
		at("sbx-direct-abroad", "1.0", "sbx-one @ http://elsewhere.invalid/sbx_one-1.0-py3-none-any.whl"),
	)
	x.Add(index.Project{Name: "sbx-yanked", Files: []index.File{yanked(at("sbx-yanked", "1.0"), "it loses data")}})
	x.Add(index.Project{Name: "sbx-needs-yanked", Files: []index.File{at("sbx-needs-yanked", "1.0", "sbx-yanked==1.0").File()}})
	x.AddWheels(index.Wheel{Name: "sbx-needs-source", Version: "1.0", Requires: []string{"sbx-source>=1"}}, index.Wheel{Name: "sbx-extra-source", Version: "1.0"},
		index.Wheel{Name: "sbx-extra-source", Version: "2.0", Extras: []string{"more"}, Requires: []string{`sbx-source; extra == "more"`}})
	x.Add(index.Project{Name: "sbx-source", Files: []index.File{index.Sdist{Name: "sbx-source", Version: "1.0"}.File()}})
}
