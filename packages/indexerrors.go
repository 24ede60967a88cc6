package packages

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
)

// IndexError means that an index, or a host that keeps its files, did not give a usable answer. It is not the caller's fault,
// and the same request may succeed later.
type IndexError struct {
	// Host is the host that failed, with its port unless that is 443.
	Host string
	// Reason is the rest of a sentence that begins with the host.
	Reason string
	// Timeout says that the host did not answer in time.
	Timeout bool
	// Status is the HTTP status of the answer, or 0 when that is not the reason.
	Status int
	// Err is the cause, or nil. It is for errors.Is and errors.As, not to be shown: its text may have URLs.
	Err error
}

func (e *IndexError) Error() string {
	return "the package index at " + e.Host + " " + e.Reason +
		": try again later, or let the operator check pip's settings for index, proxy and certificates"
}

// Unwrap returns e.Err.
func (e *IndexError) Unwrap() error { return e.Err }

// HostError means that a page or a redirect led to a host that is not allowed. No request was sent to that host.
type HostError struct {
	// Host with its port, unless that is 443.
	Host string
}

func (e *HostError) Error() string {
	return fmt.Sprintf("the index sends the installer to %s, which is not one of its hosts: the operator can allow it with packages { hosts %s }", e.Host, e.Host)
}

// TooLargeError means that the files of one download are larger together than DownloadOptions.MaxBytes.
type TooLargeError struct {
	// Name of the file with which the bound was exceeded.
	Name string
	// Bytes is the least size that all files have together.
	Bytes int64
	// MaxBytes is the bound.
	MaxBytes int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the files to download are %s or more together with %s, and may be %s: ask for fewer or smaller packages, or let the operator raise the limit",
		humanize.IBytes(uint64(e.Bytes)), e.Name, humanize.IBytes(uint64(e.MaxBytes)))
}

// HashError means that a file has another hash than the index announced. The file was discarded.
type HashError struct {
	// Name of the file.
	Name string
	// Want and Got are SHA-256, in lower-case hexadecimal.
	Want, Got string
}

func (e *HashError) Error() string {
	return fmt.Sprintf("%s is not the file that the index announced: its SHA-256 is %s instead of %s, so it was discarded; try again, and if it stays so let the operator check the index",
		e.Name, e.Got, e.Want)
}

// NotFoundError means that a host does not have a file that the index announced.
type NotFoundError struct {
	// Name of the file. Host is the host that was asked, "" for a local file.
	Name, Host string
}

func (e *NotFoundError) Error() string {
	where := e.Host
	if where == "" {
		where = "the local directory"
	}
	return fmt.Sprintf("%s does not have %s, though the index announced it: ask for another version", where, e.Name)
}

// errStalled is the cause with which a watchedBody cancels its request.
var errStalled = errors.New("nothing came for too long")

// requestError turns the error of a request to u, or of reading its answer, into one that can be shown: net/http's errors have
// the whole URL, whose query may be a secret. ctx is the caller's. When ctx was cancelled, its error is returned; when its
// deadline has passed, an IndexError with Timeout.
func requestError(ctx context.Context, u *url.URL, err error) error {
	if host := new(HostError); errors.As(err, &host) {
		return host
	}
	if index := new(IndexError); errors.As(err, &index) {
		return index
	}
	if cause := ctx.Err(); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	host := u.Host
	if request := new(url.Error); errors.As(err, &request) {
		if last, parseErr := url.Parse(request.URL); parseErr == nil && last.Host != "" {
			host = last.Host // after redirects
		}
		err = request.Err
	}
	e := &IndexError{Host: shownHost(host), Err: err}
	operation, certificate, dns := new(net.OpError), new(tls.CertificateVerificationError), new(net.DNSError)
	var timeout net.Error
	switch {
	case errors.Is(err, errStalled), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil,
		errors.As(err, &timeout) && timeout.Timeout():
		e.Reason, e.Timeout = "did not answer in time", true
	case errors.As(err, &certificate):
		e.Reason = "has a certificate that is not trusted (" + certificate.Err.Error() + ")"
	case errors.As(err, &dns):
		e.Reason = "cannot be found: its name is not known here"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Reason = "refuses connections"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		e.Reason = "closed the connection before its answer was complete"
	default:
		e.Reason = "cannot be used (" + strings.TrimSpace(err.Error()) + ")"
	}
	if errors.As(err, &operation) && operation.Op == "proxyconnect" {
		e.Reason = "cannot be reached, since the proxy before it fails (" + operation.Err.Error() + ")"
	}
	return e
}
