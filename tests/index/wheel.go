package index

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Wheel describes a wheel to build. Name and Version are needed; the rest may be zero.
type Wheel struct {
	Name, Version string
	// Requires are Requires-Dist lines, such as `other>=1` or `other; extra == "more"`.
	Requires []string
	// Extras are Provides-Extra lines.
	Extras         []string
	RequiresPython string
	// Files maps paths to contents. nil is one module that is called as the wheel and knows its __version__.
	Files map[string]string
	// Raw are entries that are written as they are, after Files, and are not in RECORD unless they say so.
	Raw []RawEntry
	// Tag is python-abi-platform. Default: py3-none-any.
	Tag string
	// Padding adds a file with so many zero bytes, not compressed.
	Padding int64

	// NoRecord, NoMetadata and NoWheelFile leave a file of .dist-info out.
	NoRecord, NoMetadata, NoWheelFile bool
	// WrongRecord writes another hash than the files have into RECORD.
	WrongRecord bool
	// MetadataName and MetadataVersion take the place of Name and Version in METADATA, to forge.
	MetadataName, MetadataVersion string
}

// RawEntry is a zip entry that no honest builder writes.
type RawEntry struct {
	// Name may be anything, such as ../x or /x.
	Name string
	// Content is also the target of a symlink.
	Content string
	// Mode of the file, such as fs.ModeSymlink | 0o777. Default: 0o644.
	Mode fs.FileMode
	// Zeros adds so many zero bytes after Content, compressed: a bomb.
	Zeros int64
	// InRecord lists the entry in RECORD, with its right hash, which makes Zeros slow.
	InRecord bool
}

// built is when everything was made, so that equal wheels have equal hashes.
var built = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

var notInNames = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// Build returns the file's name and content.
func (w Wheel) Build() (filename string, content []byte) {
	tag := w.Tag
	if tag == "" {
		tag = "py3-none-any"
	}
	stem := notInNames.ReplaceAllString(w.Name, "_") + "-" + strings.ReplaceAll(w.Version, "-", "_")
	info := stem + ".dist-info/"

	entries := make([]RawEntry, 0, len(w.Files)+4)
	for path, text := range w.modules() {
		entries = append(entries, RawEntry{Name: path, Content: text, InRecord: true})
	}
	slices.SortFunc(entries, func(a, b RawEntry) int { return strings.Compare(a.Name, b.Name) })
	if !w.NoMetadata {
		entries = append(entries, RawEntry{Name: info + "METADATA", Content: w.metadata(), InRecord: true})
	}
	if !w.NoWheelFile {
		pure := strings.HasSuffix(tag, "-none-any")
		entries = append(entries, RawEntry{Name: info + "WHEEL", InRecord: true, Content: fmt.Sprintf(
			"Wheel-Version: 1.0\nGenerator: tests-index\nRoot-Is-Purelib: %t\nTag: %s\n", pure, tag)})
	}
	entries = append(entries, w.Raw...)

	var file bytes.Buffer
	z := zip.NewWriter(&file)
	var record strings.Builder
	for _, entry := range entries {
		sum := writeEntry(z, entry, zip.Deflate)
		if w.WrongRecord {
			sum = make([]byte, sha256.Size)
		}
		if entry.InRecord {
			fmt.Fprintf(&record, "%s,sha256=%s,%d\n", entry.Name, base64.RawURLEncoding.EncodeToString(sum), int64(len(entry.Content))+entry.Zeros)
		}
	}
	if w.Padding > 0 {
		padding := RawEntry{Name: strings.ReplaceAll(stem, "-", "_") + "_padding.bin", Zeros: w.Padding}
		sum := writeEntry(z, padding, zip.Store)
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", padding.Name, base64.RawURLEncoding.EncodeToString(sum), w.Padding)
	}
	if !w.NoRecord {
		writeEntry(z, RawEntry{Name: info + "RECORD", Content: record.String() + info + "RECORD,,\n"}, zip.Deflate)
	}
	must(z.Close())
	return stem + "-" + tag + ".whl", file.Bytes()
}

// File returns the built wheel for a Project.
func (w Wheel) File() File {
	name, content := w.Build()
	return File{Name: name, Content: content, RequiresPython: w.RequiresPython}
}

func (w Wheel) modules() map[string]string {
	if w.Files != nil {
		return w.Files
	}
	return map[string]string{moduleName(w.Name) + ".py": fmt.Sprintf("__version__ = %q\n", w.Version)}
}

func (w Wheel) metadata() string {
	name, version := w.Name, w.Version
	if w.MetadataName != "" {
		name = w.MetadataName
	}
	if w.MetadataVersion != "" {
		version = w.MetadataVersion
	}
	return metadata(name, version, w.RequiresPython, w.Requires, w.Extras)
}

func metadata(name, version, requiresPython string, requires, extras []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Metadata-Version: 2.1\nName: %s\nVersion: %s\nSummary: a package for tests\n", name, version)
	if requiresPython != "" {
		fmt.Fprintf(&b, "Requires-Python: %s\n", requiresPython)
	}
	for _, extra := range extras {
		fmt.Fprintf(&b, "Provides-Extra: %s\n", extra)
	}
	for _, requirement := range requires {
		fmt.Fprintf(&b, "Requires-Dist: %s\n", requirement)
	}
	return b.String()
}

func moduleName(project string) string {
	return strings.ToLower(strings.Trim(notInNames.ReplaceAllString(strings.ReplaceAll(project, ".", "_"), "_"), "_"))
}

// writeEntry returns the SHA-256 of what is in the entry.
func writeEntry(z *zip.Writer, entry RawEntry, method uint16) []byte {
	header := &zip.FileHeader{Name: entry.Name, Method: method, Modified: built}
	mode := entry.Mode
	if mode == 0 {
		mode = 0o644
	}
	header.SetMode(mode)
	z.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) { return deflater{entry, out}, nil })
	out, err := z.CreateHeader(header)
	must(err)
	if strings.HasSuffix(entry.Name, "/") { // a directory, which takes no content
		return nil
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, sum), io.MultiReader(strings.NewReader(entry.Content), io.LimitReader(zeros{}, entry.Zeros)))
	must(err)
	return sum.Sum(nil)
}

const mebibyte = 1 << 20

// deflatedMebibyte is a mebibyte of zeros as DEFLATE blocks that end with a byte and are not the last ones (RFC 1951).
var deflatedMebibyte = sync.OnceValue(func() []byte { return flushed(zeros{}, mebibyte) })

// deflater compresses one entry. Any number of zeros costs the time of a mebibyte, since blocks that refer to nothing before them can be
// repeated: with the race detector, a hundred mebibytes would take seconds.
type deflater struct {
	entry RawEntry
	out   io.Writer
}

// Write takes what the entry says anyway.
func (d deflater) Write(p []byte) (int, error) { return len(p), nil }

func (d deflater) Close() error {
	for _, blocks := range [][]byte{
		flushed(strings.NewReader(d.entry.Content), int64(len(d.entry.Content))),
		bytes.Repeat(deflatedMebibyte(), int(d.entry.Zeros/mebibyte)),
		flushed(zeros{}, d.entry.Zeros%mebibyte),
		{1, 0, 0, 0xff, 0xff}, // an empty block, which is the last one
	} {
		if _, err := d.out.Write(blocks); err != nil {
			return err
		}
	}
	return nil
}

func flushed(from io.Reader, count int64) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.DefaultCompression)
	must(err)
	_, err = io.CopyN(w, from, count)
	must(err)
	must(w.Flush())
	return out.Bytes()
}

// zeros reads as zero bytes for ever.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Sdist describes a source distribution to build with setuptools. Name and Version are needed.
type Sdist struct {
	Name, Version  string
	Requires       []string
	RequiresPython string
	// SetupPy takes the place of the setup.py, such as one that shows that it ran.
	SetupPy string
	// Files maps further paths, below the top directory, to contents. nil is one module that is called as the project.
	Files map[string]string
}

// Build returns the file's name and content.
func (s Sdist) Build() (filename string, content []byte) {
	top := notInNames.ReplaceAllString(s.Name, "_") + "-" + s.Version
	module := moduleName(s.Name)
	setup := s.SetupPy
	if setup == "" {
		quoted := make([]string, len(s.Requires))
		for i, requirement := range s.Requires {
			quoted[i] = fmt.Sprintf("%q", requirement)
		}
		setup = fmt.Sprintf("from setuptools import setup\nsetup(name=%q, version=%q, py_modules=[%q], install_requires=[%s])\n",
			s.Name, s.Version, module, strings.Join(quoted, ", "))
	}
	files := map[string]string{
		"PKG-INFO":       metadata(s.Name, s.Version, s.RequiresPython, s.Requires, nil),
		"pyproject.toml": "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n",
		"setup.py":       setup,
	}
	if s.Files == nil {
		files[module+".py"] = fmt.Sprintf("__version__ = %q\n", s.Version)
	}
	for path, text := range s.Files {
		files[path] = text
	}
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)

	var file bytes.Buffer
	compressed := gzip.NewWriter(&file)
	archive := tar.NewWriter(compressed)
	for _, path := range paths {
		text := files[path]
		must(archive.WriteHeader(&tar.Header{Name: top + "/" + path, Size: int64(len(text)), Mode: 0o644, ModTime: built}))
		_, err := io.WriteString(archive, text)
		must(err)
	}
	must(archive.Close())
	must(compressed.Close())
	return top + ".tar.gz", file.Bytes()
}

// File returns the built source distribution for a Project.
func (s Sdist) File() File {
	name, content := s.Build()
	return File{Name: name, Content: content, RequiresPython: s.RequiresPython}
}

// must is for what fails in memory only when a test is written wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
