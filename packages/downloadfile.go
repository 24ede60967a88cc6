package packages

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// partial is a file that is not complete yet.
type partial struct {
	file    *os.File
	sum     hash.Hash // of the bytes that are written
	written int64     // bytes
	resumed bool      // the bytes come from several responses
}

func (p *partial) restart() error {
	p.sum, p.written, p.resumed = sha256.New(), 0, false
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// fetch downloads one file, or copies a local one, and returns its path.
func (d *downloads) fetch(ctx context.Context, f *download) (path string, err error) {
	file, err := os.CreateTemp(d.into, ".download-*")
	if err != nil {
		return "", fmt.Errorf("making a file for %s: %w", f.file, err)
	}
	defer func() {
		_ = file.Close()
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	part := &partial{file: file, sum: sha256.New()}
	if f.url.Scheme == "file" {
		err = d.copyLocal(ctx, f, part)
	} else {
		err = d.fetchRemote(ctx, f, part)
	}
	if err != nil {
		return "", err
	}
	if err := file.Close(); err != nil {
		return "", fmt.Errorf("writing %s: %w", f.file, err)
	}
	path = filepath.Join(d.into, f.file)
	return path, os.Rename(file.Name(), path)
}

// retryError wraps an error after which the next attempt may succeed.
type retryError struct{ error }

func (d *downloads) fetchRemote(ctx context.Context, f *download, part *partial) error {
	pause := d.x.backoff
	for try := 0; ; try++ {
		err := d.attempt(ctx, f, part)
		if err == nil {
			if err = f.verify(part); err == nil {
				return nil
			}
			if part.resumed { // the file may have changed between two responses
				err = retryError{err}
			}
			if restartErr := part.restart(); restartErr != nil {
				return fmt.Errorf("writing %s: %w", f.file, restartErr)
			}
		}
		again := retryError{}
		if !errors.As(err, &again) {
			return err
		}
		if try == downloadRetries {
			return again.error
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// attempt sends one request for the bytes of a file that are missing, and writes them.
func (d *downloads) attempt(ctx context.Context, f *download, part *partial) error {
	header := identity()
	if part.written > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", part.written))
	}
	response, err := d.x.request(ctx, http.MethodGet, f.url, header, d.check(f))
	if err != nil {
		return retryable(err)
	}
	defer func() { _ = response.Body.Close() }()
	switch status := response.StatusCode; {
	case status == http.StatusOK:
		if part.written > 0 { // the host ignored Range and sends the whole file
			if err := part.restart(); err != nil {
				return fmt.Errorf("writing %s: %w", f.file, err)
			}
		}
	case status == http.StatusPartialContent && part.written > 0 &&
		strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", part.written)):
		part.resumed = true
	case status == http.StatusPartialContent, status == http.StatusRequestedRangeNotSatisfiable:
		if err := part.restart(); err != nil {
			return fmt.Errorf("writing %s: %w", f.file, err)
		}
		return retryError{statusError(response)}
	case status == http.StatusNotFound, status == http.StatusGone:
		return &NotFoundError{Name: f.file, Host: shownHost(response.Request.URL.Host)}
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return retryError{statusError(response)}
	default:
		return statusError(response)
	}
	size := response.ContentLength
	if size >= 0 {
		size += part.written
	}
	if err := d.announce(f, size); err != nil {
		return err
	}
	return d.copy(f, part, response.Body)
}

// retryable wraps an error of a request in a retryError, unless our own checks refused the request or a certificate is not
// trusted.
func retryable(err error) error {
	index, certificate := new(IndexError), new(tls.CertificateVerificationError)
	if errors.As(err, &index) && index.Err != nil && !errors.As(index.Err, &certificate) {
		return retryError{err}
	}
	return err
}

// copy writes the content of a file. It fails before it writes bytes with which all files together would exceed MaxBytes.
func (d *downloads) copy(f *download, part *partial, from io.Reader) error {
	buffer := make([]byte, 128<<10)
	for {
		n, readErr := from.Read(buffer)
		if n > 0 {
			if err := d.advance(f, part.written+int64(n)); err != nil {
				return err
			}
			if _, err := part.file.Write(buffer[:n]); err != nil {
				return fmt.Errorf("writing %s: %w", f.file, err)
			}
			part.sum.Write(buffer[:n])
			part.written += int64(n)
		}
		switch {
		case readErr == io.EOF:
			return nil
		case readErr != nil:
			return retryable(readErr)
		}
	}
}

func (f *download) verify(part *partial) error {
	if got := hex.EncodeToString(part.sum.Sum(nil)); f.SHA256 != "" && got != f.SHA256 {
		return &HashError{Name: f.file, Want: f.SHA256, Got: got}
	}
	return nil
}

func (d *downloads) copyLocal(ctx context.Context, f *download, part *partial) error {
	file, err := d.x.openLocal(f.url.Path)
	if errors.Is(err, os.ErrNotExist) {
		return &NotFoundError{Name: f.file}
	}
	if err != nil {
		return fmt.Errorf("%s cannot be read: let the operator check the directories of find-links: %w", f.file, err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.file, err)
	}
	if err := d.announce(f, info.Size()); err != nil {
		return err
	}
	if err := d.copy(f, part, contextReader{ctx, file}); err != nil {
		return err
	}
	return f.verify(part)
}

// contextReader fails once its context has ended.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// localDir returns the directory of find-links below which a path is, or "" when there is none.
func (x *Index) localDir(path string) string {
	for _, dir := range x.dirs {
		if rest, err := filepath.Rel(dir, filepath.Clean(path)); err == nil && filepath.IsLocal(rest) && rest != "." {
			return dir
		}
	}
	return ""
}

// openLocal opens a regular file below a directory of find-links. A symbolic link that leads out of the directory is an error.
func (x *Index) openLocal(path string) (*os.File, error) {
	dir := x.localDir(path)
	if dir == "" {
		return nil, os.ErrPermission
	}
	rest, err := filepath.Rel(dir, filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(rest) // first, since opening a named pipe would block
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", filepath.Base(path))
	}
	return root.Open(rest)
}
