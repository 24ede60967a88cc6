package packages

import (
	"archive/zip"
	"cmp"
	"fmt"
	"io/fs"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const (
	pycache           = "__pycache__"
	maxPathDepth      = 64
	maxComponentBytes = 255
	maxPathBytes      = 2048 // Linux takes 4096, including the path of the store's directory
)

// wheelLayout says where each file of a wheel is unpacked to.
type wheelLayout struct {
	distInfo string // name of the .dist-info directory at the top of the wheel and of the site
	files    []wheelFile
	topLevel []string // sorted
	bytes    int64    // of the unpacked files; those that are left out do not count
}

// wheelFile is a file of a wheel, not a directory.
type wheelFile struct {
	*zip.File
	target     string // path below the site; "" for a file that is left out
	executable bool
}

// checkWheel decides by the archive's directory and the headers of its entries, before anything is unpacked, whether a wheel
// is refused, and where its files go. These are left out without an error:
//
//   - .pth and .start files at the top of the site, since an interpreter runs code from them when it starts;
//   - scripts, headers and data of the .data directory, since they do not belong on sys.path;
//   - __pycache__, since compiled files come from our own compiler only;
//   - .egg-info at the top, since it could pass for the metadata of another distribution;
//   - empty directories, and files of the .dist-info directory that the installer writes, not the wheel.
func checkWheel(files []*zip.File, name wheelName, l WheelLimits) (*wheelLayout, error) {
	l = l.withDefaults()
	if len(files) > l.MaxFiles {
		return nil, name.refuse("it has more than %d files", l.MaxFiles)
	}
	layout := &wheelLayout{}
	var total int64
	for _, f := range files {
		if err := checkEntry(f, name); err != nil {
			return nil, err
		}
		if f.UncompressedSize64 > uint64(l.MaxBytes-total) {
			return nil, &WheelError{Wheel: name.file, Reason: fmt.Sprintf("its files have more than %d bytes together", l.MaxBytes), TooLarge: true}
		}
		total += int64(f.UncompressedSize64)
		if err := layout.findDistInfo(f, name); err != nil {
			return nil, err
		}
	}
	if layout.distInfo == "" {
		return nil, name.refuse("it has no .dist-info directory")
	}
	for _, f := range files {
		if err := layout.place(f, name); err != nil {
			return nil, err
		}
	}
	for _, check := range []func(wheelName, WheelLimits) error{layout.checkDistInfo, layout.checkCollisions, layout.checkOverlaps, layout.checkTopLevel} {
		if err := check(name, l); err != nil {
			return nil, err
		}
	}
	return layout, nil
}

var (
	driveLetter = regexp.MustCompile(`^[A-Za-z]:`)
	methodNames = map[uint16]string{9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd", 99: "AES"}
)

// checkEntry makes the checks that need no other entry than f.
func checkEntry(f *zip.File, name wheelName) error {
	path := strings.TrimSuffix(f.Name, "/")
	components := strings.Split(path, "/")
	switch {
	case !utf8.ValidString(f.Name):
		return name.refuse("the name of its file %q is not UTF-8", f.Name)
	case strings.ContainsFunc(f.Name, unicode.IsControl):
		return name.refuse("the name of its file %q has a control character", f.Name)
	case strings.Contains(f.Name, `\`):
		return name.refuse("the name of its file %q has a backslash", f.Name)
	case strings.HasPrefix(f.Name, "/") || driveLetter.MatchString(f.Name):
		return name.refuse("its file %q has an absolute path", f.Name)
	case len(components) > maxPathDepth:
		return name.refuse("its file %.80q… lies deeper than %d directories", f.Name, maxPathDepth)
	case len(f.Name) > maxPathBytes:
		return name.refuse("its file %.80q… has a path of more than %d bytes", f.Name, maxPathBytes)
	}
	for _, component := range components {
		switch {
		case component == "..":
			return name.refuse("its file %q leads outside by ..", f.Name)
		case component == "" || component == ".":
			return name.refuse("the path %q of one of its files has an empty part", f.Name)
		case len(component) > maxComponentBytes:
			return name.refuse("its file %.80q… has a name of more than %d bytes", f.Name, maxComponentBytes)
		}
	}
	// The Unix mode is checked even when the entry says that it was made on another system: other tools may honor the mode.
	kind, dir := f.ExternalAttrs>>16&0o170000, strings.HasSuffix(f.Name, "/")
	switch {
	case kind == 0o120000 || f.Mode()&fs.ModeSymlink != 0:
		return name.refuse("%q is a symbolic link", f.Name)
	case dir && kind != 0 && kind != 0o040000, !dir && kind != 0 && kind != 0o100000, !dir && f.Mode().Type() != 0:
		return name.refuse("%q is neither a file nor a directory", f.Name)
	case f.Flags&(1|1<<6|1<<13) != 0 || f.Method == 99:
		return name.refuse("its file %q is encrypted", f.Name)
	case f.Method != zip.Store && f.Method != zip.Deflate:
		method, known := methodNames[f.Method]
		if !known {
			method = "a method unknown to wheels"
		}
		return name.refuse("its file %q is compressed with %s, and only deflate is supported", f.Name, method)
	case dir && f.UncompressedSize64 != 0:
		return name.refuse("its directory %q has content", f.Name)
	case f.CompressedSize64 > math.MaxInt64/2:
		return name.refuse("its file %q says that it is larger than any archive", f.Name)
	}
	return nil
}

// findDistInfo notes the .dist-info directory and refuses a second one, in upper or lower case, since importlib.metadata
// ignores the case of the ending.
func (w *wheelLayout) findDistInfo(f *zip.File, name wheelName) error {
	top, _, below := strings.Cut(f.Name, "/")
	if !below || !strings.HasSuffix(strings.ToLower(top), ".dist-info") || top == w.distInfo {
		return nil
	}
	if w.distInfo != "" {
		return name.refuse("it has two .dist-info directories, %q and %q", w.distInfo, top)
	}
	if !strings.HasSuffix(top, ".dist-info") || !ofDistribution(strings.TrimSuffix(top, ".dist-info"), name) {
		return name.refuse("its directory %q is not of the distribution and version that the file is named for", top)
	}
	w.distInfo = top
	return nil
}

// ofDistribution says whether text is the name and the version of a wheel, with - between them.
func ofDistribution(text string, name wheelName) bool {
	cut := strings.LastIndexByte(text, '-')
	return cut > 0 && name.matches(text[:cut], text[cut+1:])
}

// place adds a file to the layout, with its target.
func (w *wheelLayout) place(f *zip.File, name wheelName) error {
	if strings.HasSuffix(f.Name, "/") {
		return nil // a directory is made with the first file in it
	}
	target := f.Name
	top, rest, below := strings.Cut(f.Name, "/")
	if stem, isData := strings.CutSuffix(top, ".data"); isData && below {
		if !ofDistribution(stem, name) {
			return name.refuse("its directory %q is not of the distribution and version that the file is named for", top)
		}
		scheme, inside, _ := strings.Cut(rest, "/")
		switch {
		case inside == "":
			return name.refuse("its directory %q holds the file %q, and only purelib, platlib, scripts, headers and data belong there", top, rest)
		case scheme == "purelib" || scheme == "platlib":
			target = inside
		case scheme == "scripts" || scheme == "headers" || scheme == "data":
			target = ""
		default:
			return name.refuse("its directory %q holds %q, and only purelib, platlib, scripts, headers and data belong there", top, scheme)
		}
		// purelib and platlib are unpacked to the top of the site. They must not pass for the metadata of another distribution.
		if first, _, _ := strings.Cut(target, "/"); strings.HasSuffix(strings.ToLower(first), ".dist-info") && first != w.distInfo {
			return name.refuse("its directory %q brings a .dist-info directory of its own", top)
		}
	}
	if strings.HasPrefix(target, w.distInfo+"/INSTALLER/") {
		return name.refuse("it has a directory %s/INSTALLER, which must be a file", w.distInfo)
	}
	if leftOut(target, w.distInfo) {
		target = ""
	}
	w.files = append(w.files, wheelFile{File: f, target: target, executable: f.ExternalAttrs>>16&0o111 != 0})
	if target != "" {
		w.bytes += int64(f.UncompressedSize64)
	}
	return nil
}

func leftOut(target, distInfo string) bool {
	top, _, below := strings.Cut(strings.ToLower(target), "/")
	// Python runs .pth files at the top of a site only. Deeper ones are kept: they may be the weights of a model.
	if strings.HasSuffix(top, ".egg-info") || !below && (strings.HasSuffix(top, ".pth") || strings.HasSuffix(top, ".start")) {
		return true
	}
	switch target {
	case distInfo + "/INSTALLER", distInfo + "/REQUESTED", distInfo + "/direct_url.json":
		return true
	}
	return slices.Contains(strings.Split(target, "/"), pycache)
}

// checkDistInfo refuses a wheel without METADATA, WHEEL or RECORD, which the further checks read.
func (w *wheelLayout) checkDistInfo(name wheelName, _ WheelLimits) error {
	for _, needed := range []string{"METADATA", "WHEEL", "RECORD"} {
		if w.find(w.distInfo+"/"+needed) == nil {
			return name.refuse("it has no file %s/%s", w.distInfo, needed)
		}
	}
	return nil
}

// find returns the file of this name in the archive, or nil.
func (w *wheelLayout) find(path string) *wheelFile {
	if at := slices.IndexFunc(w.files, func(f wheelFile) bool { return f.Name == path }); at >= 0 {
		return &w.files[at]
	}
	return nil
}

// checkCollisions refuses two files whose paths are the same on a file system that ignores case or normalizes Unicode, and a
// file in the place of another file's directory.
func (w *wheelLayout) checkCollisions(name wheelName, _ WheelLimits) error {
	for _, place := range []func(wheelFile) string{
		func(f wheelFile) string { return f.Name },
		func(f wheelFile) string { return f.target },
	} {
		folded, exact := make(map[string]string, len(w.files)), make(map[string]bool, len(w.files))
		fold := cases.Fold()
		for _, f := range w.files {
			path := place(f)
			if path == "" {
				continue
			}
			key := norm.NFC.String(fold.String(norm.NFC.String(path)))
			switch other, taken := folded[key]; {
			case taken && other == path:
				return name.refuse("it has the file %q twice", path)
			case taken:
				return name.refuse("its files %q and %q have the same name but for upper and lower case or accents", other, path)
			}
			folded[key], exact[path] = path, true
		}
		for path := range exact {
			for at, c := range path {
				if c == '/' && exact[path[:at]] {
					return name.refuse("%q is a file in it, and the directory of %q", path[:at], path)
				}
			}
		}
	}
	return nil
}

// checkOverlaps refuses entries that share bytes of the archive, by which a small archive can unpack to very many bytes (a zip
// bomb).
func (w *wheelLayout) checkOverlaps(name wheelName, _ WheelLimits) error {
	type span struct {
		start, end int64
		path       string
	}
	spans := make([]span, 0, len(w.files))
	for _, f := range w.files {
		start, err := f.DataOffset()
		if err != nil {
			return name.refuse("it is damaged where its file %q starts (%v)", f.Name, err)
		}
		if start < 0 || start > math.MaxInt64/2 {
			return name.refuse("its file %q starts outside of it", f.Name)
		}
		spans = append(spans, span{start, start + int64(f.CompressedSize64), f.Name})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end)) })
	for i := 1; i < len(spans); i++ {
		if spans[i-1].end > spans[i].start {
			return name.refuse("its files %q and %q share bytes of the archive", spans[i-1].path, spans[i].path)
		}
	}
	return nil
}

// checkTopLevel lists the top-level names that programs can import, and refuses names that Python runs at its start, that the
// sandbox uses itself, or that the standard library has.
func (w *wheelLayout) checkTopLevel(name wheelName, l WheelLimits) error {
	seen := map[string]bool{}
	for _, f := range w.files {
		top, _, below := strings.Cut(f.target, "/")
		module := importable(top, below)
		if module == "" || seen[module] {
			continue
		}
		seen[module] = true
		switch {
		case module == "sitecustomize" || module == "usercustomize":
			return name.refuse("it brings the module %q, which Python would run by itself at its start", module)
		case strings.HasPrefix(module, "_sandbox_"):
			return name.refuse("it brings the module %q, and names that start with _sandbox_ are the sandbox's own", module)
		case l.Forbidden(module):
			return name.refuse("it brings a module named %q, which Python's standard library has", module)
		}
		w.topLevel = append(w.topLevel, module)
	}
	slices.Sort(w.topLevel)
	return nil
}
