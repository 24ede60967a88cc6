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

// Build makes the next generation from a set of packages; it does not make it current. Each package must be in the store (see
// Stored and Keep), and no two may have the same name. An empty set makes a generation without packages. Requested, Specifier
// and Extras of a package are taken from set, its other fields from the store.
//
// The generation is valid until End; a caller that needs it longer must Retain it.
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
	// The set is sorted by name. Where two packages bring the same file, that of the first is linked.
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

// linkTree links the files below from, a directory of an entry, into to, a directory of a site. Directories that another package
// has brought are shared (namespace packages). A path that another package has brought stays as it is, without an error: some
// packages bring the same README or test, and no two packages share a metadata directory. When from is a __pycache__, lost has
// the modules beside it that were passed over like this; their compiled files are passed over, too.
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
		case !entry.Type().IsRegular(): // unpacking makes nothing but files and directories
			return fmt.Errorf("%s is neither a file nor a directory; remove that entry from the store", filepath.Join(from, entry.Name()))
		}
		if lost[moduleOf(entry.Name())] {
			continue // the site has another package's module, to which this compiled file does not belong
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

// linkFile makes a hard link. It copies instead where that is not possible: between file systems, without support for links, at
// the greatest number of links, or for files of another user (sysctl fs.protected_hardlinks).
func linkFile(from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		return copyFile(from, to)
	}
	return err
}

// copyFile copies content, mode and modification time, all of which a hard link would share.
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

// isBuilt says whether the install may switch to g: one that it has built and not discarded, or its base.
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

// discard gives up the install's reference to a generation that it has built, which removes the generation unless somebody
// else retains it.
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
