package packages

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wheelEntry is one entry of a wheel that a test makes.
type wheelEntry struct {
	name, content string
	mode          uint32                  // Unix mode with the kind of file; 0 stands for the one that Python's zipfile writes
	stored        bool                    // not compressed
	header        func(h *zip.FileHeader) // changes the header, for instance to a wrong size
}

// testWheel is a wheel that a test makes. METADATA, WHEEL and RECORD are added unless they are among the files.
type testWheel struct {
	file     string // such as a-1-py3-none-any.whl
	distInfo string // a-1.dist-info where it is ""
	files    []wheelEntry
	record   func(record string) string // changes the text of RECORD
	without  string                     // METADATA, WHEEL or RECORD, which is then not added
}

func (w testWheel) bytes(t testing.TB) []byte {
	t.Helper()
	parts := strings.Split(w.file, "-")
	if w.distInfo == "" {
		w.distInfo = parts[0] + "-" + parts[1] + ".dist-info"
	}
	files := slices.Clone(w.files)
	add := func(name, content string) {
		path := w.distInfo + "/" + name
		if name != w.without && !slices.ContainsFunc(files, func(f wheelEntry) bool { return f.name == path }) {
			files = append(files, wheelEntry{name: path, content: content})
		}
	}
	add("METADATA", "Metadata-Version: 2.1\nName: "+parts[0]+"\nVersion: "+parts[1]+"\n\nVersion: 99\n")
	add("WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n")
	var lines strings.Builder
	for _, f := range files {
		lines.WriteString(recordLine(f.name, f.content))
	}
	record := lines.String() + w.distInfo + "/RECORD,,\n"
	if w.record != nil {
		record = w.record(record)
	}
	add("RECORD", record)
	var archive bytes.Buffer
	zw := zip.NewWriter(&archive)
	for _, f := range files {
		writeEntry(t, zw, f)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func writeEntry(t testing.TB, zw *zip.Writer, f wheelEntry) {
	t.Helper()
	if f.mode == 0 {
		f.mode = 0o600
	}
	h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, ExternalAttrs: f.mode << 16, CreatorVersion: 3 << 8}
	if f.stored || f.content == "" {
		h.Method = zip.Store
	}
	if f.header == nil {
		w, err := zw.CreateHeader(h)
		if err == nil && f.content != "" {
			_, err = w.Write([]byte(f.content))
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	h.Method, h.CRC32 = zip.Store, crc32.ChecksumIEEE([]byte(f.content))
	h.UncompressedSize64, h.CompressedSize64 = uint64(len(f.content)), uint64(len(f.content))
	f.header(h)
	w, err := zw.CreateRaw(h)
	if err == nil {
		_, err = w.Write([]byte(f.content))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func recordLine(name, content string) string {
	if strings.HasSuffix(name, "/") || strings.HasSuffix(name, "RECORD") {
		return ""
	}
	sum := sha256.Sum256([]byte(content))
	return fmt.Sprintf("%q,sha256=%s,%d\n", name, base64.RawURLEncoding.EncodeToString(sum[:]), len(content))
}

// write writes the wheel into a new directory and returns its path.
func (w testWheel) write(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), w.file)
	if err := os.WriteFile(path, w.bytes(t), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParseWheelName(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"six-1.17.0-py2.py3-none-any.whl":                                  "six 1.17.0",
		"PyYAML-6.0.2-cp311-cp311-manylinux_2_17_x86_64.whl":               "pyyaml 6.0.2",
		"zope.interface-7.1-1build2-cp311-cp311-linux_x86_64.whl":          "zope-interface 7.1",
		"ruamel.yaml_x-1.0+ubuntu_1-py3-none-any.whl":                      "ruamel-yaml-x 1.0+ubuntu_1",
		"a-1!2.0-py3-none-any.whl":                                         "a 1!2.0",
		"six-1.17.0.tar.gz":                                                "",
		"six.whl":                                                          "",
		"six-1.17.0-py3-none.whl":                                          "",
		"six-1.17.0-x-py3-none-any.whl":                                    "",
		"six-1.17.0-1-2-py3-none-any.whl":                                  "",
		"-1.0-py3-none-any.whl":                                            "",
		"_six-1.0-py3-none-any.whl":                                        "",
		"six--py3-none-any.whl":                                            "",
		"six-../x-py3-none-any.whl":                                        "",
		"six-1.0-py3-none-a y.whl":                                         "",
		"six-1.0-py3--any.whl":                                             "",
		"s" + strings.Repeat("x", 200) + "-1.0-py3-none-any.whl":           "",
		"siх-1.0-py3-none-any.whl":                                         "", // a Cyrillic letter
		"six-1.0\n-py3-none-any.whl":                                       "",
		"numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux2014.whl":  "numpy 2.4.6",
		"numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux2014.whl ": "",
	} {
		n, err := parseWheelName(file)
		got := strings.TrimSpace(n.name + " " + n.version)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", file, got, err, want)
		}
	}
}

// A wheel's file name and its METADATA may write the same version in different ways.
func TestWheelNameMatches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		file, name, version string
		want                bool
	}{
		{"six-1.17.0-py3-none-any.whl", "Six", "1.17", true},
		{"six-1.17.0-py3-none-any.whl", "six", "1.17.1", false},
		{"six-1.17.0-py3-none-any.whl", "seven", "1.17.0", false},
		{"six-1_1-py3-none-any.whl", "six", "1.post1", true},
		{"six-1_1-py3-none-any.whl", "six", "1.1", false},
		{"torch-2.1+cu_118-py3-none-any.whl", "torch", "2.1+cu.118", true},
		{"torch-2.1+cu118-py3-none-any.whl", "torch", "2.1", false},
		{"pytz-2004d-py3-none-any.whl", "pytz", "2004D", true},
		{"x-1.0_rc1-py3-none-any.whl", "x", "1.0RC1", true},
	} {
		n, err := parseWheelName(test.file)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.matches(test.name, test.version); got != test.want {
			t.Errorf("%s and %s %s: %v, want %v", test.file, test.name, test.version, got, test.want)
		}
	}
}

func TestImportable(t *testing.T) {
	t.Parallel()
	for top, want := range map[string]string{
		"a.py": "a", "a.pyc": "a", "a.so": "a", "a.abi3.so": "a", "a.cpython-311-x86_64-linux-gnu.so": "a",
		"a": "", "a.txt": "", "a.b.py": "", "a-b.py": "", "1a.py": "", "LICENSE": "", "a.pth": "", "ä.py": "ä", "": "", ".py": "",
	} {
		if got := importable(top, false); got != want {
			t.Errorf("the file %q: got %q, want %q", top, got, want)
		}
	}
	for top, want := range map[string]string{
		"a": "a", "a_1": "a_1", "a.libs": "", "a-1.dist-info": "", "__pycache__": "", "_a": "_a", "a-stubs": "", "a.py": "",
	} {
		if got := importable(top, true); got != want {
			t.Errorf("the directory %q: got %q, want %q", top, got, want)
		}
	}
}
