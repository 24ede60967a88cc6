package packages

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Build makes the next generation of a set of packages, each of which must be in the store (Stored or Keep), and no two of
// which may have the same name; an empty set is a generation without packages. It is not current yet. Of a package of the
// set, the store's own record is kept, with Requested, Specifier and Extras as they are here.
//
// The generation is valid until End; who needs it longer must Retain it.
func (i *Install) Build(ctx context.Context, set []Package) (*Generation, error) {
	g, err := i.build(ctx, sortedByName(set))
	if err != nil {
		return nil, fmt.Errorf("building a set of packages: %w", err)
	}
	return g, nil
}

func (i *Install) build(ctx context.Context, set []Package) (*Generation, error) {
	number, err := i.nextNumber()
	if err != nil {
		return nil, err
	}
	dir := i.staging + "/" + strconv.Itoa(number)
	site := dir + "/site"
	if err := mkdirAllShared(site); err != nil {
		return nil, err
	}
	// The set is in the order of names: where two packages bring the same file, the first one's is linked.
	for at, p := range set {
		if at > 0 && p.Name == set[at-1].Name {
			return nil, fmt.Errorf("the package %s is twice in it", p.Name)
		}
		name, err := entryName(p)
		if err != nil {
			return nil, err
		}
		entry := i.store.path("store", name)
		kept, err := readEntry(entry)
		if err == nil && kept.SHA256 != p.SHA256 {
			err = errors.New("it has another one")
		}
		if err != nil {
			return nil, fmt.Errorf("the store has no usable wheel of %s %s (%w); install it again", p.Name, p.Version, err)
		}
		if err := linkTree(ctx, entry+"/site", site, nil); err != nil {
			return nil, fmt.Errorf("linking %s %s: %w", p.Name, p.Version, err)
		}
		kept.Requested, kept.Specifier, kept.Extras = p.Requested, p.Specifier, p.Extras
		set[at] = kept
	}
	if err := writeManifest(dir, manifest{Number: number, Packages: set, Created: time.Now().UTC()}); err != nil {
		return nil, err
	}
	if err := os.Rename(dir, i.store.path("generations", strconv.Itoa(number))); err != nil {
		return nil, err
	}
	g, err := i.store.openGeneration(number)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.built = append(i.built, g)
	return g, nil
}

func writeManifest(dir string, m manifest) error {
	if m.Packages == nil {
		m.Packages = []Package{}
	}
	text, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return fmt.Errorf("writing the manifest of generation %d: %w", m.Number, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return writeShared(root, "manifest.json", 0o644, bytes.NewReader(append(text, '\n')))
}

// linkTree links the files of an entry into a site, where directories of other packages may be already (namespace packages).
// What is there already stays, be it a file or a directory: packages are known that bring the same README or test, and the
// metadata directories of two packages have different names. Lost names files beside from that stay behind; see below.
func linkTree(ctx context.Context, from, to string, lost map[string]bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	found, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	losers := map[string]bool{}
	var dirs []string
	for _, entry := range found {
		switch {
		case entry.IsDir():
			dirs = append(dirs, entry.Name())
			continue
		case !entry.Type().IsRegular(): // a store holds no other
			return fmt.Errorf("%s is neither a file nor a directory; remove that entry from the store", filepath.Join(from, entry.Name()))
		}
		if lost[moduleOf(entry.Name())] {
			continue // the module is another package's, and so must be what is compiled from it
		}
		err := linkFile(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()))
		if errors.Is(err, fs.ErrExist) {
			losers[entry.Name()] = true
		} else if err != nil {
			return err
		}
	}
	for _, name := range dirs {
		below := filepath.Join(to, name)
		err := os.Mkdir(below, 0o755)
		if err == nil {
			err = os.Chmod(below, 0o755)
		} else if stat, statErr := os.Lstat(below); statErr == nil {
			if err = nil; !stat.IsDir() {
				continue
			}
		}
		if err != nil {
			return err
		}
		var lostBeside map[string]bool
		if name == pycache {
			lostBeside = losers
		}
		if err := linkTree(ctx, filepath.Join(from, name), below, lostBeside); err != nil {
			return err
		}
	}
	return nil
}

// linkFile copies where a file system has no links, or no more of them, or lets one not link the files of another user.
func linkFile(from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		return copyFile(from, to)
	}
	return err
}

// copyFile keeps the time of a file's last change, which compiled files are checked against.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	stat, err := in.Stat()
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := writeShared(root, filepath.Base(to), stat.Mode().Perm(), in); err != nil {
		return err
	}
	return os.Chtimes(to, time.Time{}, stat.ModTime())
}

// isBuilt says whether the install has a reference to g, which it may switch to.
func (i *Install) isBuilt(g *Generation) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, b := range i.built {
		if b == g {
			return true
		}
	}
	return g == i.base
}

// discard removes a generation that was built, or leaves that to its last Release.
func (i *Install) discard(g *Generation) {
	i.mu.Lock()
	found := false
	for at, b := range i.built {
		if b == g {
			i.built, found = append(i.built[:at:at], i.built[at+1:]...), true
			break
		}
	}
	i.mu.Unlock()
	if found {
		g.Release()
	}
}
