package index

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"regexp"
	"strings"
	"time"
)

// Project is what one page of the index lists.
type Project struct {
	// Name in any spelling.
	Name  string
	Files []File
}

// File is one file of a project, and how it is served. A File with a Name and Content is served well.
type File struct {
	Name    string
	Content []byte
	// Stream serves so many zero bytes in the place of Content, without holding them.
	Stream int64
	// Metadata is what is served as NAME.metadata. Default: what a wheel in Content has.
	Metadata       []byte
	RequiresPython string
	Yanked         bool
	YankedReason   string

	// NoMetadata serves no metadata, so that a client must fetch the file to know it.
	NoMetadata bool
	// NoHash leaves the hash out of pages, NoSize the size.
	NoHash, NoSize bool
	// HashWrong announces a hash that the file does not have.
	HashWrong bool
	// URL is announced in the place of the server's own.
	URL string

	// Delay is the time before the file's answer begins. It ends early when the client leaves, or the server closes.
	Delay time.Duration
	// Status is answered in the place of the file, such as 404 or 500.
	Status int
	// RedirectTo is where the client is sent in the place of the file.
	RedirectTo string
	// Truncate ends the answer so many bytes before its Content-Length.
	Truncate int64
	// Chunked announces no length.
	Chunked bool
	// NoRanges always sends the whole file.
	NoRanges bool
	// Times bounds how often Delay, Status and Truncate are done; then the file is served well. 0 is always.
	Times int
}

// size is that of the file's answer.
func (f *File) size() int64 {
	if f.Stream > 0 {
		return f.Stream
	}
	return int64(len(f.Content))
}

// served is a File with what is known of it.
type served struct {
	File
	project string
	sha256  string // as pages announce it
	used    int    // of Times
}

func newServed(project string, f File) *served {
	sum := sha256.New()
	if f.Stream > 0 {
		_, err := io.Copy(sum, io.LimitReader(zeros{}, f.Stream))
		must(err)
	} else {
		sum.Write(f.Content)
	}
	if f.HashWrong {
		sum.Write([]byte("wrong"))
	}
	if f.Metadata == nil {
		f.Metadata = wheelMetadata(f.Content)
	}
	if f.NoMetadata {
		f.Metadata = nil
	}
	return &served{File: f, project: project, sha256: hex.EncodeToString(sum.Sum(nil))}
}

func (f *served) metadataHash() string {
	sum := sha256.Sum256(f.Metadata)
	return hex.EncodeToString(sum[:])
}

// wheelMetadata returns a wheel's METADATA, or nil.
func wheelMetadata(content []byte) []byte {
	archive, _ := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if archive == nil { // an error may also tell of names that a forged wheel has on purpose
		return nil
	}
	for _, entry := range archive.File {
		if dir, ok := strings.CutSuffix(entry.Name, ".dist-info/METADATA"); ok && !strings.Contains(dir, "/") {
			in, openErr := entry.Open()
			must(openErr)
			text, readErr := io.ReadAll(in)
			must(readErr)
			return text
		}
	}
	return nil
}

var separators = regexp.MustCompile(`[-_.]+`)

// Canonical returns a project's name as PEP 503 spells it.
func Canonical(name string) string { return strings.ToLower(separators.ReplaceAllString(name, "-")) }
