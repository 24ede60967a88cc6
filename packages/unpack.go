package packages

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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

// installer is the content of the file INSTALLER in .dist-info, which names the tool that installed a package (PEP 376).
const installer = "caddy-python-sandbox\n"

// unpackWheel checks a wheel and unpacks it into site, an existing empty directory. After an error, site may have a part of
// the files. A *WheelError means that the wheel is at fault; other errors are the context's or the file system's.
func unpackWheel(ctx context.Context, wheelPath, site string, l WheelLimits) (Package, error) {
	l = l.withDefaults()
	name, err := parseWheelName(filepath.Base(wheelPath))
	if err != nil {
		return Package{}, err
	}
	file, err := os.OpenFile(wheelPath, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Package{}, fmt.Errorf("reading a wheel: %w", err)
	}
	defer func() { _ = file.Close() }()
	stat, err := file.Stat()
	if err != nil {
		return Package{}, fmt.Errorf("reading a wheel: %w", err)
	}
	if !stat.Mode().IsRegular() {
		return Package{}, name.refuse("it is not a file")
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, &patientReader{ctx, file}); err != nil {
		return Package{}, fmt.Errorf("reading the wheel %s: %w", name.file, err)
	}
	directory := &directoryReader{ReaderAt: file, left: l.MaxFiles + spareSignatures}
	archive, err := zip.NewReader(directory, stat.Size())
	directory.whole = true
	if errors.Is(err, errManyFiles) {
		return Package{}, name.refuse("it has more than %d files", l.MaxFiles)
	}
	if err != nil {
		return Package{}, name.refuse("it is no zip archive, or a part of one (%v)", err)
	}
	layout, err := checkWheel(archive.File, name, l)
	if err != nil {
		return Package{}, err
	}
	p := Package{Name: name.name, SHA256: hex.EncodeToString(sum.Sum(nil)), Bytes: layout.bytes + int64(len(installer)), TopLevel: layout.topLevel}
	if p.Version, err = layout.readVersion(ctx, name); err != nil {
		return Package{}, err
	}
	record, err := layout.readRecord(ctx, name)
	if err != nil {
		return Package{}, err
	}
	if err := layout.unpack(ctx, name, record, site); err != nil {
		return Package{}, err
	}
	return p, nil
}

// unpack writes the files below site. Their paths were checked by checkWheel; os.Root keeps them inside even if a check has a
// fault.
func (w *wheelLayout) unpack(ctx context.Context, name wheelName, record map[string]fileHash, site string) error {
	root, err := os.OpenRoot(site)
	if err != nil {
		return fmt.Errorf("unpacking the wheel %s: %w", name.file, err)
	}
	defer func() { _ = root.Close() }()
	made := map[string]bool{".": true}
	for _, f := range w.files {
		if err := unpackFile(ctx, name, root, made, f, record); err != nil {
			var refused *WheelError
			if errors.As(err, &refused) || ctx.Err() != nil {
				return err
			}
			return fmt.Errorf("unpacking the wheel %s: %w", name.file, err)
		}
	}
	if err := writeShared(root, w.distInfo+"/INSTALLER", 0o644, strings.NewReader(installer)); err != nil {
		return fmt.Errorf("unpacking the wheel %s: %w", name.file, err)
	}
	return nil
}

// unpackFile also reads the files that are left out: a wrong hash of any file in RECORD refuses the wheel.
func unpackFile(ctx context.Context, name wheelName, root *os.Root, made map[string]bool, f wheelFile, record map[string]fileHash) error {
	if f.target == "" {
		return copyVerified(ctx, name, f, record, io.Discard)
	}
	if err := mkdirShared(root, path.Dir(f.target), made); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if f.executable {
		mode = 0o755
	}
	file, err := createShared(root, f.target, mode)
	if err != nil {
		return err
	}
	return errors.Join(copyVerified(ctx, name, f, record, file), file.Close())
}

// copyVerified writes a file's content to w, and refuses the wheel when the content has another hash than RECORD says.
func copyVerified(ctx context.Context, name wheelName, f wheelFile, record map[string]fileHash, w io.Writer) error {
	want, ok := record[f.Name]
	if !ok { // RECORD itself or its signature; readRecord refuses others
		return copyEntry(ctx, name, f.File, w)
	}
	sum := hashes[want.algorithm]()
	if err := copyEntry(ctx, name, f.File, io.MultiWriter(w, sum)); err != nil {
		return err
	}
	if string(sum.Sum(nil)) != want.sum {
		return name.refuse("its file %q is not the one that its RECORD has the hash of", f.Name)
	}
	return nil
}

// mkdirShared makes a directory below root, and those above it, readable for all, whatever the umask. made has the directories
// that are done already.
func mkdirShared(root *os.Root, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := mkdirShared(root, path.Dir(dir), made); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := root.Chmod(dir, 0o755); err != nil {
		return err
	}
	made[dir] = true
	return nil
}

// createShared makes a new file with this mode, whatever the umask. A file that exists is an error.
func createShared(root *os.Root, name string, mode fs.FileMode) (*os.File, error) {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Chmod(mode); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

func writeShared(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	file, err := createShared(root, name, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

// patientReader fails once its context has ended.
type patientReader struct {
	ctx context.Context
	io.Reader
}

func (r *patientReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// spareSignatures is how many more signatures of entries than WheelLimits.MaxFiles a directoryReader lets pass. archive/zip
// looks for the end of the directory in the last 1 KiB and then 65 KiB of the archive, and so may read entries more than once.
const spareSignatures = 4096

var errManyFiles = errors.New("too many files")

// directoryReader counts the signatures of entries while archive/zip reads the archive's directory, and fails after too many
// of them. archive/zip holds the whole directory in memory before it returns, and an entry takes as little as 46 bytes in the
// archive, but several times as much in memory.
type directoryReader struct {
	io.ReaderAt
	left  int  // how many more signatures may come
	whole bool // the directory was read; the reads that follow are of files' contents, and are not counted
}

func (r *directoryReader) ReadAt(b []byte, offset int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(b, offset)
	if r.whole {
		return n, err
	}
	for at := range n - 3 {
		if binary.LittleEndian.Uint32(b[at:]) == 0x02014b50 {
			r.left--
		}
	}
	if r.left < 0 {
		return 0, errManyFiles
	}
	return n, err
}
