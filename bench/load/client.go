package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"slices"
	"strconv"
	"time"
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
	address string
	conn    net.Conn
	reader  *bufio.Reader
	// request is the whole request; nonce is the slice of it that changes.
	request []byte
	nonce   []byte
	serial  uint32
	body    []byte

	latencies []time.Duration
	// first and last are when the first measured run began and the last one ended.
	first, last time.Time
	errors      int
	wrong       int
	firstFault  string
}

func newClient(address, code string, number int) (*client, error) {
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
	head := "POST /execute HTTP/1.1\r\nHost: " + address +
		"\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	request := append([]byte(head), body...)
	at := len(head) + bytes.Index(body, []byte(word))
	return &client{
		address:   address,
		request:   request,
		nonce:     request[at : at+len(word)],
		body:      make([]byte, 0, 4096),
		latencies: make([]time.Duration, 0, 1<<14),
	}, nil
}

// loop sends one request after the other and measures those that begin from
// begin to end, one at least. The last one is waited for: it counts whole, and
// it does not burden what is measured next.
func (c *client) loop(begin, end time.Time, think time.Duration) {
	defer c.close()
	for {
		started := time.Now()
		if !started.Before(end) && !c.first.IsZero() {
			return
		}
		right, err := c.run(started)
		done := time.Now()
		measured := !started.Before(begin)
		if measured {
			if c.first.IsZero() {
				c.first = started
			}
			c.last = done
		}
		switch {
		case err != nil:
			c.errors++
			c.fault(err)
			c.close()
			time.Sleep(retryPause)
		case !right:
			c.wrong++
		case measured:
			c.latencies = append(c.latencies, done.Sub(started))
		}
		if think > 0 {
			time.Sleep(think)
		}
	}
}

// run sends one request and says whether the answer is the right one.
func (c *client) run(started time.Time) (right bool, err error) {
	if c.conn == nil {
		c.conn, err = net.DialTimeout("tcp", c.address, 5*time.Second)
		if err != nil {
			return false, err
		}
		c.reader = bufio.NewReaderSize(c.conn, 8192)
	}
	if err := c.conn.SetDeadline(started.Add(answerDeadline)); err != nil {
		return false, err
	}
	c.serial++
	putHex(c.nonce[prefixLength:], c.serial)
	if _, err := c.conn.Write(c.request); err != nil {
		return false, err
	}
	status, err := c.readAnswer()
	if err != nil {
		return false, err
	}
	if status != 200 {
		// A refusal is an error of the server under load, not a wrong answer.
		return false, fmt.Errorf("status %d: %.200s", status, c.body)
	}
	return c.verify(), nil
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
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// putHex writes n in hexadecimal, with leading zeros, over all of into.
func putHex(into []byte, n uint32) {
	for i := len(into) - 1; i >= 0; i-- {
		into[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}
