package packages

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const testWheelFile = "a-1-py3-none-any.whl"

var testLimits = WheelLimits{MaxBytes: 1 << 20, MaxFiles: 200, Forbidden: func(top string) bool { return top == "json" }}

// refusals are wheels that must be refused, each with a part of the reason.
var refusals = map[string]struct {
	wheel  testWheel
	change func(archive []byte) []byte
	reason string
}{
	"name of the file": {wheel: testWheel{file: "a-1.whl", distInfo: "a-1.dist-info"}, change: nil, reason: "its name is not of the form"},
	"not an archive":   {change: func([]byte) []byte { return []byte("<html>") }, reason: "no zip archive"},
	"empty file":       {change: func([]byte) []byte { return nil }, reason: "no zip archive"},
	"truncated":        {change: func(b []byte) []byte { return b[:len(b)-30] }, reason: "no zip archive"},
	"middle missing":   {wheel: one("a.py", strings.Repeat("x", 9000)), change: func(b []byte) []byte { return slices.Delete(b, 40, 50) }, reason: "damaged"},
	"content changed":  {wheel: testWheel{files: []wheelEntry{{name: "a.py", content: "xyz", stored: true}}}, change: func(b []byte) []byte { return bytes.Replace(b, []byte("xyz"), []byte("xyy"), 1) }, reason: "damaged"},

	"no dist-info":          {wheel: testWheel{distInfo: "a-1.dist"}, reason: "no .dist-info directory"},
	"two dist-infos":        {wheel: one("b-1.dist-info/METADATA", "Name: b"), reason: "dist-info"},
	"two dist-infos, case":  {wheel: one("a-1.Dist-Info/METADATA", "Name: b"), reason: "not of the distribution and version"},
	"other version":         {wheel: testWheel{distInfo: "a-2.dist-info"}, reason: "not of the distribution and version"},
	"other name":            {wheel: testWheel{distInfo: "b-1.dist-info"}, reason: "not of the distribution and version"},
	"no METADATA":           {wheel: testWheel{without: "METADATA"}, reason: "it has no file a-1.dist-info/METADATA"},
	"no WHEEL":              {wheel: testWheel{without: "WHEEL"}, reason: "it has no file a-1.dist-info/WHEEL"},
	"no RECORD":             {wheel: testWheel{without: "RECORD"}, reason: "it has no file a-1.dist-info/RECORD"},
	"metadata's name":       {wheel: one("a-1.dist-info/METADATA", "Name: b\nVersion: 1\n"), reason: "says that it is b 1"},
	"metadata's version":    {wheel: one("a-1.dist-info/METADATA", "Name: a\nVersion: 1.0.1\n"), reason: "says that it is a 1.0.1"},
	"metadata is empty":     {wheel: one("a-1.dist-info/METADATA", "\nName: a\nVersion: 1\n"), reason: "no name and version"},
	"version is a path":     {wheel: one("a-1.dist-info/METADATA", "Name: a\nVersion: 1/../..\n"), reason: "no name and version"},
	"format of wheels":      {wheel: one("a-1.dist-info/WHEEL", "Wheel-Version: 2.0\n"), reason: "version \"2.0\" of wheels"},
	"data of another":       {wheel: one("b-1.data/purelib/x.py", ""), reason: "not of the distribution and version"},
	"unknown data":          {wheel: one("a-1.data/stdlib/x.py", ""), reason: "only purelib, platlib"},
	"file in data":          {wheel: one("a-1.data/x.py", ""), reason: "only purelib, platlib"},
	"INSTALLER is a folder": {wheel: one("a-1.dist-info/INSTALLER/x", ""), reason: "must be a file"},
	"dist-info by data":     {wheel: one("a-1.data/purelib/b-1.dist-info/METADATA", ""), reason: "a .dist-info directory of its own"},

	"absolute":        {wheel: one("/etc/passwd", ""), reason: "absolute path"},
	"drive":           {wheel: one("c:/a.py", ""), reason: "absolute path"},
	"backslash":       {wheel: one(`a\b.py`, ""), reason: "backslash"},
	"dots":            {wheel: one("a/../../b.py", ""), reason: "leads outside"},
	"dots at the top": {wheel: one("../b.py", ""), reason: "leads outside"},
	"dots of data":    {wheel: one("a-1.data/purelib/../x.py", ""), reason: "leads outside"},
	"directory":       {wheel: one("a/../", ""), reason: "leads outside"},
	"dot":             {wheel: one("a/./b.py", ""), reason: "empty part"},
	"empty part":      {wheel: one("a//b.py", ""), reason: "empty part"},
	"empty name":      {wheel: one("", ""), reason: "empty part"},
	"two slashes":     {wheel: one("a//", ""), reason: "empty part"},
	"NUL":             {wheel: one("a\x00.py", ""), reason: "control character"},
	"newline":         {wheel: one("a\n.py", ""), reason: "control character"},
	"C1 control":      {wheel: one("a\u0085.py", ""), reason: "control character"},
	"not UTF-8":       {wheel: one("a\xff.py", ""), reason: "not UTF-8"},
	"long name":       {wheel: one(strings.Repeat("a", 256), ""), reason: "more than 255 bytes"},
	"deep":            {wheel: one(strings.Repeat("a/", 64)+"b.py", ""), reason: "deeper than 64"},
	"long path":       {wheel: one(strings.Repeat(strings.Repeat("a", 200)+"/", 12)+"b.py", ""), reason: "more than 2048 bytes"},

	"symbolic link":           {wheel: special("a", 0o120777), reason: "symbolic link"},
	"link to a directory":     {wheel: special("a/", 0o120777), reason: "symbolic link"},
	"link of another system":  {wheel: headed("a", func(h *zip.FileHeader) { h.CreatorVersion, h.ExternalAttrs = 0, 0o120777<<16 }), reason: "symbolic link"},
	"fifo":                    {wheel: special("a", 0o010644), reason: "neither a file nor a directory"},
	"device":                  {wheel: special("a", 0o060644), reason: "neither a file nor a directory"},
	"socket":                  {wheel: special("a", 0o140644), reason: "neither a file nor a directory"},
	"directory without slash": {wheel: special("a", 0o040755), reason: "neither a file nor a directory"},
	"directory with content":  {wheel: headed("a/", func(h *zip.FileHeader) { h.UncompressedSize64 = 7 }), reason: "has content"},
	"encrypted":               {wheel: headed("a", func(h *zip.FileHeader) { h.Flags |= 1 }), reason: "encrypted"},
	"AES":                     {wheel: headed("a", func(h *zip.FileHeader) { h.Method = 99 }), reason: "encrypted"},
	"deflate64":               {wheel: headed("a", func(h *zip.FileHeader) { h.Method = 9 }), reason: "compressed with deflate64"},
	"bzip2":                   {wheel: headed("a", func(h *zip.FileHeader) { h.Method = 12 }), reason: "compressed with bzip2"},
	"lzma":                    {wheel: headed("a", func(h *zip.FileHeader) { h.Method = 14 }), reason: "compressed with lzma"},
	"unknown method":          {wheel: headed("a", func(h *zip.FileHeader) { h.Method = 1000 }), reason: "a method unknown"},

	"duplicate":         {wheel: many("a.py", "a.py"), reason: `the file "a.py" twice`},
	"case":              {wheel: many("b/a.py", "b/A.py"), reason: "upper and lower case"},
	"case of a folder":  {wheel: many("b/a.py", "B/a.py"), reason: "upper and lower case"},
	"sharp s":           {wheel: many("straße.py", "STRASSE.py"), reason: "upper and lower case"},
	"composed":          {wheel: many("\u00e9.py", "e\u0301.py"), reason: "accents"},
	"duplicate by data": {wheel: many("b.py", "a-1.data/purelib/b.py"), reason: `the file "b.py" twice`},
	"file is a parent":  {wheel: many("b", "b/c/d.py"), reason: "the directory of"},
	"parent by data":    {wheel: many("b/c.py", "a-1.data/platlib/b"), reason: "the directory of"},

	"too large":            {wheel: one("a.py", strings.Repeat("x", 1<<20)), reason: "more than 1048576 bytes together"},
	"too large together":   {wheel: testWheel{files: []wheelEntry{{name: "a.py", content: strings.Repeat("x", 1<<19)}, {name: "b.py", content: strings.Repeat("x", 1<<19)}}}, reason: "more than 1048576 bytes together"},
	"says too large":       {wheel: headed("a.py", func(h *zip.FileHeader) { h.UncompressedSize64 = 1<<64 - 1 }), reason: "more than 1048576 bytes together"},
	"larger than archives": {wheel: headed("a.py", func(h *zip.FileHeader) { h.CompressedSize64 = 1<<63 - 1 }), reason: "larger than any archive"},
	"larger than it says":  {wheel: headed("a.py", func(h *zip.FileHeader) { h.UncompressedSize64-- }), reason: "damaged"},
	"smaller than it says": {wheel: headed("a.py", func(h *zip.FileHeader) { h.UncompressedSize64++ }), reason: "damaged"},
	"many files":           {wheel: many(numbered(200)...), reason: "more than 200 files"},
	"very many files":      {wheel: many(numbered(10_000)...), reason: "more than 200 files"},
	"overlap":              {wheel: testWheel{files: []wheelEntry{{name: "a.py", content: "x", stored: true}, {name: "b.py", content: "x", stored: true}}}, change: shareFirst, reason: "share bytes"},

	"shadows a module":           {wheel: one("json.py", ""), reason: `a module named "json"`},
	"shadows a package":          {wheel: one("json/__init__.py", ""), reason: `a module named "json"`},
	"shadows a namespace":        {wheel: one("json/x.txt", ""), reason: `a module named "json"`},
	"shadows by bytecode":        {wheel: one("json.pyc", ""), reason: `a module named "json"`},
	"shadows by extension":       {wheel: one("json.cpython-311-x86_64-linux-gnu.so", ""), reason: `a module named "json"`},
	"shadows by abi3":            {wheel: one("json.abi3.so", ""), reason: `a module named "json"`},
	"shadows by plain extension": {wheel: one("json.so", ""), reason: `a module named "json"`},
	"shadows by data":            {wheel: one("a-1.data/purelib/json.py", ""), reason: `a module named "json"`},
	"sitecustomize":              {wheel: one("sitecustomize.py", ""), reason: "run by itself"},
	"usercustomize":              {wheel: one("usercustomize/__init__.py", ""), reason: "run by itself"},
	"the sandbox's":              {wheel: one("_sandbox_x.py", ""), reason: "the sandbox's own"},

	"not in RECORD":    {wheel: recorded(func(r string) string { return dropLine(r, `"a.py"`) }), reason: `does not list its file "a.py"`},
	"left out, too":    {wheel: testWheel{files: []wheelEntry{{name: "a.pth", content: "x"}}, record: func(r string) string { return dropLine(r, `"a.pth"`) }}, reason: `does not list its file "a.pth"`},
	"only in RECORD":   {wheel: recorded(func(r string) string { return r + recordLine("b.py", "") }), reason: `lists "b.py"`},
	"another hash":     {wheel: recorded(func(r string) string { return dropLine(r, `"a.py"`) + recordLine("a.py", "y") }), reason: "not the one that its RECORD"},
	"no hash":          {wheel: recorded(func(r string) string { return dropLine(r, `"a.py"`) + "a.py,,\n" }), reason: "sha256=… is needed"},
	"MD5":              {wheel: recorded(func(r string) string { return dropLine(r, `"a.py"`) + "a.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,1\n" }), reason: "sha256=… is needed"},
	"short hash":       {wheel: recorded(func(r string) string { return dropLine(r, `"a.py"`) + "a.py,sha256=abcd,1\n" }), reason: "sha256=… is needed"},
	"two hashes":       {wheel: recorded(func(r string) string { return r + recordLine("a.py", "y") }), reason: "twice, with different hashes"},
	"RECORD's form":    {wheel: recorded(func(r string) string { return r + "x\n" }), reason: "cannot be read"},
	"RECORD's quoting": {wheel: recorded(func(r string) string { return r + "\"x\n" }), reason: "cannot be read"},
}

func one(name, content string) testWheel {
	return testWheel{files: []wheelEntry{{name: name, content: content}}}
}

func special(name string, mode uint32) testWheel {
	return testWheel{files: []wheelEntry{{name: name, mode: mode}}}
}

func headed(name string, header func(*zip.FileHeader)) testWheel {
	w := testWheel{files: []wheelEntry{{name: name, content: "content", header: header}}}
	if strings.HasSuffix(name, "/") {
		w.files[0].content = ""
	}
	return w
}

func many(names ...string) testWheel {
	var w testWheel
	for _, name := range names {
		w.files = append(w.files, wheelEntry{name: name})
	}
	return w
}

func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, "d/"+strings.Repeat("x", i%100)+string(rune('a'+i%26))+"/"+filepath.Base(filepath.Join("/", string(rune(0x4e00+i)))))
	}
	return names
}

func recorded(change func(string) string) testWheel {
	return testWheel{files: []wheelEntry{{name: "a.py", content: "x"}}, record: change}
}

func dropLine(record, start string) string {
	var kept []string
	for _, line := range strings.SplitAfter(record, "\n") {
		if !strings.HasPrefix(line, start) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// shareFirst changes the archive's directory so that the second file begins where the first one does.
func shareFirst(archive []byte) []byte {
	signature := []byte("PK\x01\x02")
	first := bytes.Index(archive, signature)
	second := first + 4 + bytes.Index(archive[first+4:], signature)
	copy(archive[second+42:second+46], archive[first+42:first+46])
	return archive
}

func TestRefusedWheels(t *testing.T) {
	t.Parallel()
	for what, row := range refusals {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if row.wheel.file == "" {
				row.wheel.file = testWheelFile
			}
			if row.wheel.distInfo == "" {
				row.wheel.distInfo = "a-1.dist-info"
			}
			archive := row.wheel.bytes(t)
			if row.change != nil {
				archive = row.change(archive)
			}
			_, err := tryUnpack(t, row.wheel.file, archive)
			var refused *WheelError
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want a WheelError", err)
			}
			if !strings.Contains(refused.Reason, row.reason) || refused.Wheel != row.wheel.file {
				t.Errorf("got %v, want a reason with %q", err, row.reason)
			}
			if text := err.Error(); strings.ContainsAny(text, "\x00\n") || len(text) > 1000 {
				t.Errorf("the sentence is not one to print: %q", text)
			}
		})
	}
}

// tryUnpack unpacks an archive, and checks that only files and directories below the site are written.
func tryUnpack(t testing.TB, file string, archive []byte) (Package, error) {
	t.Helper()
	dir := t.TempDir()
	path, site := filepath.Join(dir, file), filepath.Join(dir, "1/2/3/site")
	if err := os.MkdirAll(site, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	p, unpackErr := unpackWheel(context.Background(), path, site, testLimits)
	var held int64
	err := filepath.WalkDir(dir, func(found string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside := strings.HasPrefix(found, site+"/")
		stat, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case found == path || strings.HasPrefix(site+"/", found+"/"):
		case !inside:
			t.Errorf("%s is outside of the site", found)
		case stat.IsDir() && stat.Mode() == fs.ModeDir|0o755:
		case stat.Mode() == 0o644 || stat.Mode() == 0o755:
			held += stat.Size()
		default:
			t.Errorf("%s has the mode %v", found, stat.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if held > testLimits.MaxBytes+int64(len(installer)) {
		t.Errorf("%d bytes were written", held)
	}
	if unpackErr == nil && held != p.Bytes {
		t.Errorf("%d bytes are there, and the package says %d", held, p.Bytes)
	}
	return p, unpackErr
}

func FuzzWheel(f *testing.F) {
	for _, row := range refusals {
		row.wheel.file, row.wheel.distInfo = testWheelFile, "a-1.dist-info"
		if len(row.wheel.files) > 100 {
			continue
		}
		archive := row.wheel.bytes(f)
		if row.change != nil {
			archive = row.change(archive)
		}
		f.Add(archive)
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		if _, err := tryUnpack(t, testWheelFile, archive); err != nil {
			var refused *WheelError
			if !errors.As(err, &refused) {
				t.Errorf("got %v, and it is the wheel's fault", err)
			}
		}
	})
}

// FuzzWheelEntry fuzzes entries in a wheel whose RECORD is right, so that entries that pass the checks are really unpacked.
func FuzzWheelEntry(f *testing.F) {
	for _, row := range refusals {
		for _, entry := range row.wheel.files {
			if len(row.wheel.files) < 3 && len(entry.content) < 1000 {
				f.Add(entry.name, entry.name+"x", entry.mode, entry.content)
			}
		}
	}
	f.Add("a/b.py", "a-1.data/purelib/a/c.py", uint32(0o100755), "x = 1\n")
	f.Fuzz(func(t *testing.T, first, second string, mode uint32, content string) {
		if len(first) > 1<<15 || len(second) > 1<<15 {
			return
		}
		w := testWheel{file: testWheelFile, files: []wheelEntry{{name: first, content: content, mode: mode & 0xffff}, {name: second, content: content}}}
		for i := range w.files {
			if strings.HasSuffix(w.files[i].name, "/") {
				w.files[i].content = ""
			}
		}
		if _, err := tryUnpack(t, w.file, w.bytes(t)); err != nil {
			var refused *WheelError
			if !errors.As(err, &refused) {
				t.Errorf("got %v, and it is the wheel's fault", err)
			}
		}
	})
}

// archive/zip reads the archive's directory into memory as a whole. directoryReader must fail before it has read too many entries.
func TestDirectoryReader(t *testing.T) {
	t.Parallel()
	entry := make([]byte, 46)
	binary.LittleEndian.PutUint32(entry, 0x02014b50)
	directory := bytes.Repeat(entry, 1_000_000)
	end := make([]byte, 22)
	binary.LittleEndian.PutUint32(end, 0x06054b50)
	binary.LittleEndian.PutUint16(end[10:], uint16(1_000_000%65536))
	binary.LittleEndian.PutUint32(end[12:], uint32(len(directory)))
	archive := slices.Concat(directory, end)
	reader := &directoryReader{ReaderAt: bytes.NewReader(archive), left: 1000}
	if _, err := zip.NewReader(reader, int64(len(archive))); !errors.Is(err, errManyFiles) {
		t.Errorf("got %v", err)
	}
	if reader.left < -20_000 { // archive/zip reads more than one entry at a time
		t.Errorf("%d entries were read after the last that is welcome", -reader.left)
	}
}
