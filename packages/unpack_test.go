package packages

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestUnpackEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	i := begin(t, s)
	defer i.End()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := i.Unpack(ctx, synthetic("a", 1).write(t), WheelLimits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := list(t, i.staging+"/unpacked"); len(left) != 0 {
		t.Errorf("left %q", left)
	}
	_, err := i.Unpack(context.Background(), filepath.Join(t.TempDir(), "b-1-py3-none-any.whl"), WheelLimits{})
	var refused *WheelError
	if err == nil || errors.As(err, &refused) {
		t.Errorf("got %v for a file that is not there", err)
	}
}

// Some files of a wheel are left out; see checkWheel.
func TestUnpackedFiles(t *testing.T) {
	t.Parallel()
	w := testWheel{file: "A.b-1.0-py3-none-any.whl", distInfo: "a_b-1.dist-info", files: []wheelEntry{
		{name: "a_b/", mode: 0o040775}, {name: "a_b/__init__.py", content: "x = 1\n", mode: 0o106777}, {name: "a_b/tool", mode: 0o100711}, {name: "empty/"},
		{name: "a_b/weights.pth", content: "w"}, {name: "a_b/__pycache__/__init__.cpython-311.pyc", content: "evil"}, {name: "__pycache__/six.cpython-311.pyc", content: "evil"},
		{name: "x.pth", content: "import os"}, {name: "Z2.PTH", content: "import os"}, {name: "y.start", content: "a:b"},
		{name: "A.b-1.0.data/purelib/pure.py"}, {name: "A.b-1.0.data/platlib/plat.abi3.so", stored: true}, {name: "A.b-1.0.data/purelib/z.pth", content: "import os"},
		{name: "A.b-1.0.data/scripts/run", mode: 0o100755}, {name: "A.b-1.0.data/headers/a.h"}, {name: "A.b-1.0.data/data/share/man/a.1"}, {name: "A.b-1.0.data/purelib/"},
		{name: "other-1.egg-info/PKG-INFO"}, {name: "third.egg-info"},
		{name: "a_b.libs/libx.so.1", content: "\x7fELF"}, {name: "ns/deep/x.txt"}, {name: "compiled.pyc"}, {name: "ünï/x.py"}, {name: "not-a-name/x.py"}, {name: "README.md"},
		{name: "a_b-1.dist-info/INSTALLER", content: "pip"}, {name: "a_b-1.dist-info/direct_url.json"}, {name: "a_b-1.dist-info/RECORD.jws", content: "{}"},
		{name: "a_b-1.dist-info/METADATA", content: "metadata-version: 2.1\r\nname: a-B\r\nversion: 1.00\r\n"},
	}}
	site := t.TempDir()
	p, err := unpackWheel(context.Background(), w.write(t), site, WheelLimits{})
	must(t, err)
	if p.Name != "a-b" || p.Version != "1.00" || !slices.Equal(p.TopLevel, []string{"a_b", "compiled", "ns", "plat", "pure", "ünï"}) {
		t.Errorf("got %+v", p)
	}
	want := []string{"README.md", "a_b-1.dist-info/INSTALLER", "a_b-1.dist-info/METADATA", "a_b-1.dist-info/RECORD", "a_b-1.dist-info/RECORD.jws", "a_b-1.dist-info/WHEEL",
		"a_b.libs/libx.so.1", "a_b/__init__.py", "a_b/tool", "a_b/weights.pth", "compiled.pyc", "not-a-name/x.py", "ns/deep/x.txt", "plat.abi3.so", "pure.py", "ünï/x.py"}
	var got []string
	for name := range readTree(t, site) {
		got = append(got, name)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for name, mode := range map[string]os.FileMode{"a_b/__init__.py": 0o755, "a_b/tool": 0o755, "pure.py": 0o644} {
		if stat, err := os.Stat(filepath.Join(site, name)); err != nil || stat.Mode() != mode {
			t.Errorf("%s: got %v, %v; want %v", name, stat.Mode(), err, mode)
		}
	}
	if text, _ := os.ReadFile(site + "/a_b-1.dist-info/INSTALLER"); string(text) != installer {
		t.Errorf("INSTALLER is %q", text)
	}
}
