package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerDeadline bounds one request; the slowest honest run here is a few seconds.
	answerDeadline = 60 * time.Second
	// answerLimit bounds a body: a longer one is no answer to these programs.
	answerLimit = 1 << 20
	// retryPause keeps a client of a broken server from spinning.
	retryPause  = 20 * time.Millisecond
	placeholder = "NONCE"
	// A nonce is a random prefix per client and a serial number, so no answer
	// of another request, client or run can pass for the right one.
	prefixLength = 6
	serialLength = 8
)

// client is one keep-alive connection with at most one request under way.
type client struct {
	server unix.Sockaddr
	fd     int // -1 while there is no connection
	// request is the whole request; nonce is the slice of it that changes.
	request []byte
	nonce   []byte
	serial  uint32
	// answer is what has come of an answer so far; reader and body are for looking at it.
	answer []byte
	source bytes.Reader
	reader *bufio.Reader
	body   []byte
	// started is when the request under way was sent, zero while there is none; due is when the next one is to be sent.
	started, due time.Time

	latencies []time.Duration
	// first and last are when the first measured run began and the last one ended.
	first, last time.Time
	errors      int
	wrong       int
	firstFault  string
}

func newClient(server netip.AddrPort, code string, number int) (*client, error) {
	prefix := make([]byte, prefixLength/2)
	if _, err := rand.Read(prefix); err != nil {
		return nil, err
	}
	word := hex.EncodeToString(prefix) + fmt.Sprintf("%0*x", serialLength, 0)
	body, err := json.Marshal(map[string]string{
		"code": string(bytes.ReplaceAll([]byte(code), []byte(placeholder), []byte(word))),
	})
	if err != nil {
		return nil, err
	}
	if bytes.Count(body, []byte(word)) != 1 {
		return nil, fmt.Errorf("the code of client %d must hold %s once", number, placeholder)
	}
	head := "POST /execute HTTP/1.1\r\nHost: " + server.String() +
		"\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	request := append([]byte(head), body...)
	at := len(head) + bytes.Index(body, []byte(word))
	return &client{
		server:    &unix.SockaddrInet4{Addr: server.Addr().As4(), Port: int(server.Port())},
		fd:        -1,
		request:   request,
		nonce:     request[at : at+len(word)],
		answer:    make([]byte, 0, 8192),
		reader:    bufio.NewReaderSize(nil, 8192),
		body:      make([]byte, 0, 4096),
		latencies: make([]time.Duration, 0, 1<<14),
	}, nil
}

// connect opens the connection. On loopback that does not wait.
func (c *client) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a socket: %w", err)
	}
	c.fd = fd
	if err := unix.Connect(fd, c.server); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// send sends the next request. It fits into the socket's buffer, so that does not wait.
func (c *client) send() error {
	c.serial++
	putHex(c.nonce[prefixLength:], c.serial)
	c.answer = c.answer[:0]
	if n, err := unix.Write(c.fd, c.request); err != nil || n < len(c.request) {
		return fmt.Errorf("sending a request, %d of %d bytes: %w", n, len(c.request), cmp.Or(err, io.ErrShortWrite))
	}
	return nil
}

// receive takes what has come, and returns whether that ends the request, and whether the answer is the right one.
func (c *client) receive() (over, right bool, err error) {
	c.answer = slices.Grow(c.answer, 4096)
	n, err := unix.Read(c.fd, c.answer[len(c.answer):cap(c.answer)])
	if err == unix.EINTR { //nolint:errorlint // a bare errno
		return false, false, nil
	}
	if err != nil || n == 0 {
		return true, false, fmt.Errorf("reading an answer, after %d bytes: %w", len(c.answer), cmp.Or(err, io.ErrUnexpectedEOF))
	}
	c.answer = c.answer[:len(c.answer)+n]
	c.source.Reset(c.answer)
	c.reader.Reset(&c.source)
	status, err := c.readAnswer()
	if (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && len(c.answer) < answerLimit {
		return false, false, nil
	}
	if err == nil && status != 200 {
		// A refusal is an error of the server under load, not a wrong answer.
		err = fmt.Errorf("status %d: %.200s", status, c.body)
	}
	return true, err == nil && c.verify(), err
}

// verify holds the answer against the nonce that was sent.
func (c *client) verify() bool {
	var answer struct {
		Stdout   string `json:"stdout"`
		ExitCode *int   `json:"exit_code"`
	}
	err := json.Unmarshal(c.body, &answer)
	if err == nil && answer.ExitCode != nil && *answer.ExitCode == 0 &&
		len(answer.Stdout) == len(c.nonce)+1 && answer.Stdout[:len(c.nonce)] == string(c.nonce) &&
		answer.Stdout[len(c.nonce)] == '\n' {
		return true
	}
	c.fault(fmt.Errorf("nonce %s answered with %.300s", c.nonce, c.body))
	return false
}

// readAnswer reads one response into c.body and returns its status.
func (c *client) readAnswer() (status int, err error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return 0, fmt.Errorf("not an HTTP status line: %.80q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("not an HTTP status line: %.80q", line)
	}
	length, chunked := -1, false
	for {
		line, err = c.reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 || length > answerLimit {
				return 0, fmt.Errorf("bad content length %.40q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	if chunked {
		c.body, err = readChunks(c.reader, c.body[:0])
		return status, err
	}
	if length < 0 {
		return 0, errors.New("an answer without a length ends the connection")
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	_, err = io.ReadFull(c.reader, c.body)
	return status, err
}

// readChunks appends a chunked body to into, with its closing empty line. No trailers: none are asked for.
func readChunks(reader *bufio.Reader, into []byte) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(httputil.NewChunkedReader(reader), answerLimit))
	if err != nil {
		return into, err
	}
	line, err := reader.ReadSlice('\n')
	if err == nil && len(bytes.TrimRight(line, "\r\n")) > 0 {
		err = fmt.Errorf("unexpected trailer %.80q", line)
	}
	return append(into, body...), err
}

// rate is the runs a second of this client. It is taken over its own first and
// last run: a window cut by the clock would miscount runs that take seconds.
func (c *client) rate() float64 {
	if len(c.latencies) == 0 {
		return 0
	}
	return float64(len(c.latencies)) / c.last.Sub(c.first).Seconds()
}

func (c *client) fault(err error) {
	if c.firstFault == "" {
		c.firstFault = err.Error()
	}
}

func (c *client) close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}

// putHex writes n in hexadecimal, with leading zeros, over all of into.
func putHex(into []byte, n uint32) {
	for i := len(into) - 1; i >= 0; i-- {
		into[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}
