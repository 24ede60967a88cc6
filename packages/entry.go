package packages

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// entryHashDigits is how many digits of the wheel's SHA-256 are in the name of its entry, so that an entry is found by hash
// without reading them all. package.json has the whole hash.
const entryHashDigits = 16

// entryName returns the name of a package's directory in the store, or an error when the package's fields could not be those
// of an entry.
func entryName(p Package) (string, error) {
	if canonicalWheelName(p.Name) != p.Name || !distributionName.MatchString(p.Name) || !distributionVersion.MatchString(p.Version) ||
		len(p.Name)+len(p.Version) > maxNameBytes || !isSHA256(p.SHA256) {
		return "", fmt.Errorf("the package %.80q %.80q, of a wheel with the SHA-256 %.80q, cannot be one of the store", p.Name, p.Version, p.SHA256)
	}
	return p.Name + "-" + p.Version + "-" + p.SHA256[:entryHashDigits], nil
}

func isSHA256(text string) bool {
	sum, err := hex.DecodeString(text)
	return err == nil && len(sum) == 32 && strings.ToLower(text) == text
}

// readEntry returns the package that an entry's package.json describes.
func readEntry(dir string) (Package, error) {
	text, err := os.ReadFile(dir + "/package.json")
	if err != nil {
		return Package{}, err
	}
	var p Package
	if err := json.Unmarshal(text, &p); err != nil {
		return Package{}, fmt.Errorf("its package.json is damaged: %w", err)
	}
	if name, err := entryName(p); err != nil || name != filepath.Base(dir) {
		return Package{}, fmt.Errorf("its package.json is that of another package (%s)", name)
	}
	return p, nil
}

// Keep moves an unpacked wheel into the store, with the files that were compiled from it, and returns its package. When the
// store has an entry for the wheel's hash already, that entry stays and its package is returned.
//
// compiled is a directory that has a/__pycache__/m.<tag>.pyc or a/m.<tag>.pyc for a module a/m.py; modules that could not be
// compiled have none. "" stands for no compiled files. Keep copies the files, so that a process that still has one open for
// writing cannot change the entry. A .pyc without a module in the wheel is an error, and so are more than
// WheelLimits.MaxBytes of them; files of other names are ignored.
func (i *Install) Keep(u *Unpacked, compiled string) (Package, error) {
	p, err := i.keep(u, compiled)
	if err != nil {
		return Package{}, fmt.Errorf("keeping the package %s: %w", u.Package.Name, err)
	}
	return p, nil
}

func (i *Install) keep(u *Unpacked, compiled string) (Package, error) {
	name, err := entryName(u.Package)
	if err != nil {
		return Package{}, err
	}
	p, dir, entry := u.Package, filepath.Dir(u.Site), i.store.path("store", name)
	if compiled != "" {
		added, err := mergeCompiled(u.Site, compiled, u.maxCompiledBytes)
		if err != nil {
			return Package{}, err
		}
		p.Bytes += added
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Package{}, err
	}
	defer func() { _ = root.Close() }()
	text, err := json.Marshal(p)
	if err == nil {
		err = writeShared(root, "package.json", 0o644, bytes.NewReader(text))
	}
	if err == nil {
		err = os.Rename(dir, entry)
	}
	if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return p, err // err is nil when the entry is new
	}
	_ = os.RemoveAll(dir)
	kept, err := readEntry(entry)
	if err == nil && kept.SHA256 != p.SHA256 {
		err = errors.New("the store has another wheel whose hash begins with the same digits")
	}
	return kept, err
}

// moduleOf returns m.py, the name of the module's source, for m.<tag>.pyc or m.<tag>.opt-<level>.pyc (PEP 3147 and 488), and
// "" for other names.
func moduleOf(compiled string) string {
	parts := strings.Split(compiled, ".")
	last := len(parts) - 1
	if parts[last] != "pyc" {
		return ""
	}
	if last > 2 && strings.HasPrefix(parts[last-1], "opt-") {
		last--
	}
	if last < 2 || parts[last-1] == "" {
		return ""
	}
	return strings.Join(parts[:last-1], ".") + ".py"
}

// mergeCompiled copies compiled files into the __pycache__ directories of a site, and returns their size together in bytes.
// The process that wrote them has read untrusted wheels, so names, kinds and sizes of the files are checked.
func mergeCompiled(site, compiled string, maxBytes int64) (int64, error) {
	from, err := os.OpenRoot(compiled)
	if err != nil {
		return 0, err
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenRoot(site)
	if err != nil {
		return 0, err
	}
	defer func() { _ = to.Close() }()
	var total int64
	made := map[string]bool{".": true}
	err = fs.WalkDir(from.FS(), ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(file) != ".pyc" {
			return err
		}
		dir := path.Dir(file)
		if path.Base(dir) == pycache {
			dir = path.Dir(dir)
		}
		module := moduleOf(path.Base(file))
		if module == "" {
			return fmt.Errorf("%q is not named like a compiled module; compile it again", file)
		}
		if source, err := to.Lstat(path.Join(dir, module)); err != nil || !source.Mode().IsRegular() {
			return fmt.Errorf("%q is compiled from no module of the package; compile it again", file)
		}
		if err := mkdirShared(to, path.Join(dir, pycache), made); err != nil {
			return err
		}
		copied, err := copyCompiled(from, file, to, path.Join(dir, pycache, path.Base(file)), maxBytes-total)
		total += copied
		return err
	})
	return total, err
}

func copyCompiled(from *os.Root, source string, to *os.Root, target string, maxBytes int64) (int64, error) {
	in, err := from.OpenFile(source, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	if stat, err := in.Stat(); err != nil || !stat.Mode().IsRegular() {
		return 0, errors.Join(err, fmt.Errorf("%q is not a file; compile it again", source))
	}
	out, err := createShared(to, target, 0o644)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, maxBytes+1))
	if err == nil && n > maxBytes {
		err = fmt.Errorf("what was compiled is larger than a wheel may be; raise the limit, or leave it uncompiled")
	}
	return n, errors.Join(err, out.Close())
}
