package packages

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"hash"
	"io"
	"strings"
)

// Bounds of files that are read into memory, in bytes.
const (
	maxMetadata = 16 << 20
	maxRecord   = 64 << 20
)

// readVersion returns the distribution's version as METADATA writes it. It refuses the wheel when name or version differ from
// those in the file's name, or when the version of the wheel format is not 1.
func (w *wheelLayout) readVersion(ctx context.Context, name wheelName) (string, error) {
	metadata, err := w.read(ctx, name, "METADATA", maxMetadata)
	if err != nil {
		return "", err
	}
	distribution, version := header(metadata, "Name"), header(metadata, "Version")
	if !distributionName.MatchString(distribution) || !distributionVersion.MatchString(version) || len(distribution)+len(version) > maxNameBytes {
		return "", name.refuse("its METADATA names it %.80q and its version %.80q, which are no name and version", distribution, version)
	}
	if !name.matches(distribution, version) {
		return "", name.refuse("its METADATA says that it is %s %s", distribution, version)
	}
	wheel, err := w.read(ctx, name, "WHEEL", maxMetadata)
	if err != nil {
		return "", err
	}
	if format := header(wheel, "Wheel-Version"); format != "1" && !strings.HasPrefix(format, "1.") {
		return "", name.refuse("its format is version %.20q of wheels, and 1 is known", format)
	}
	return version, nil
}

// header returns the first value of a header in text of the form of an e-mail, as METADATA and WHEEL are, or "".
func header(text []byte, key string) string {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	for lines.Scan() && lines.Text() != "" {
		if k, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.EqualFold(k, key) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// read returns the content of a file of the .dist-info directory.
func (w *wheelLayout) read(ctx context.Context, name wheelName, file string, maxBytes uint64) ([]byte, error) {
	f := w.find(w.distInfo + "/" + file)
	if f.UncompressedSize64 > maxBytes {
		return nil, name.refuse("its %s has more than %d bytes", file, maxBytes)
	}
	var content bytes.Buffer
	if err := copyEntry(ctx, name, f.File, &content); err != nil {
		return nil, err
	}
	return content.Bytes(), nil
}

// copyEntry writes the content of f to w. archive/zip fails when there is more content than the archive's directory says, and
// checks the CRC-32 at the end.
func copyEntry(ctx context.Context, name wheelName, f *zip.File, w io.Writer) error {
	content, err := f.Open()
	if err != nil {
		return name.refuse("it is damaged in its file %q (%v)", f.Name, err)
	}
	defer func() { _ = content.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, readErr := content.Read(buffer)
		if _, err := w.Write(buffer[:n]); err != nil {
			return err
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return name.refuse("it is damaged in its file %q (%v)", f.Name, readErr)
		}
	}
}

// fileHash is the hash that RECORD has for a file.
type fileHash struct {
	algorithm string
	sum       string // raw bytes, not hexadecimal
}

// hashes has the algorithms that are accepted in RECORD. PEP 427 asks for SHA-256 or better.
var hashes = map[string]func() hash.Hash{"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}

// readRecord returns the hash that RECORD has for each file of the wheel. RECORD and the archive must name the same files, as
// PyPI requires of uploads: otherwise two installers could unpack different files from one wheel.
func (w *wheelLayout) readRecord(ctx context.Context, name wheelName) (map[string]fileHash, error) {
	text, err := w.read(ctx, name, "RECORD", maxRecord)
	if err != nil {
		return nil, err
	}
	present := make(map[string]bool, len(w.files))
	for _, f := range w.files {
		present[f.Name] = true
	}
	rows := csv.NewReader(bytes.NewReader(text))
	rows.FieldsPerRecord, rows.ReuseRecord = -1, true
	record := make(map[string]fileHash, len(w.files))
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || len(row) < 2 {
			return nil, name.refuse("its RECORD cannot be read (a line is not of the form path,hash,size)")
		}
		path := row[0]
		if strings.HasSuffix(path, "/") || w.unhashed(path) {
			continue
		}
		if !present[path] {
			return nil, name.refuse("its RECORD lists %.200q, which is not in it", path)
		}
		algorithm, encoded, _ := strings.Cut(row[1], "=")
		newHash := hashes[algorithm]
		sum, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
		if newHash == nil || err != nil || len(sum) != newHash().Size() {
			return nil, name.refuse("its RECORD has %.100q for %.200q, and sha256=… is needed", row[1], path)
		}
		found := fileHash{algorithm, string(sum)}
		if other, twice := record[path]; twice && other != found {
			return nil, name.refuse("its RECORD lists %q twice, with different hashes", path)
		}
		record[path] = found
	}
	for _, f := range w.files {
		if _, ok := record[f.Name]; !ok && !w.unhashed(f.Name) {
			return nil, name.refuse("its RECORD does not list its file %q", f.Name)
		}
	}
	return record, nil
}

// unhashed says whether path is one of the files for which RECORD has no hash: itself and its signatures.
func (w *wheelLayout) unhashed(path string) bool {
	rest, ok := strings.CutPrefix(path, w.distInfo+"/RECORD")
	return ok && (rest == "" || rest == ".jws" || rest == ".p7s")
}
