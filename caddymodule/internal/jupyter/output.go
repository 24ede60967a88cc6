package jupyter

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxRecords bounds the records of one cell.
const maxRecords = 64

// cellMIMETypes lists the MIME types that are passed on to clients. Data of other types is dropped.
var cellMIMETypes = []string{"text/plain", "image/png", "image/jpeg", "image/svg+xml", "text/html", "text/markdown", "text/latex"}

// cellOutput separates the driver's records from the text in a cell's two streams, and shows both in the order in which they come.
// Text beyond limit characters is cut as in every execution: the first half is shown as it comes, the last half at the end. Code in
// the cell can forge records, so they are checked. Not safe for concurrent use, except for receiving from begun and ended.
type cellOutput struct {
	stdout, stderr *cellStream
	limit          int                            // characters of one text
	show           func(kind string, content any) // publishes a message of type kind

	records int
	bytes   int // of all records, in base64
	left    int // records that were left out, of which the client has not been told yet
	// begun is closed by the record "begin": an interrupt reaches the cell from then on. ended is closed when both streams have
	// carried the record "end".
	begun, ended chan struct{}
	// failure is the exception that ended the cell, nil for none.
	failure *cellFailure
}

// cellFailure is the content of an error message.
type cellFailure struct {
	Name      string   `json:"ename"`
	Value     string   `json:"evalue"`
	Traceback []string `json:"traceback"`
}

// cellBundle is the content of a display_data or execute_result message: a value in each MIME type that it has.
type cellBundle struct {
	Data           map[string]string `json:"data"`
	Metadata       struct{}          `json:"metadata"`
	Transient      *struct{}         `json:"transient,omitempty"`
	ExecutionCount int               `json:"execution_count,omitempty"`
}

// streamText is the content of a stream message.
type streamText struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

func newCellOutput(mark string, limit int, show func(kind string, content any)) *cellOutput {
	o := &cellOutput{limit: limit, show: show, begun: make(chan struct{}), ended: make(chan struct{})}
	ends := [2]bool{}
	end := func(stream int) {
		if ends[stream] {
			return
		}
		ends[stream] = true
		if ends[0] && ends[1] {
			close(o.ended)
		}
	}
	o.stdout = newCellStream(mark, limit, func(text string) { o.showText("stdout", text) }, func(fields []string, bytes int) {
		if len(fields) == 1 && fields[0] == "end" {
			end(0)
			return
		}
		o.record(fields, bytes)
	})
	o.stderr = newCellStream(mark, limit, func(text string) { o.showText("stderr", text) }, func(fields []string, _ int) {
		if len(fields) == 1 && fields[0] == "end" {
			end(1)
		} else {
			o.left++
		}
	})
	return o
}

// maxStream is the most bytes of text in one stream message, since some clients bound the size of a message.
const maxStream = 64 << 10

func (o *cellOutput) showText(name, text string) {
	for len(text) > 0 {
		n := min(len(text), maxStream)
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n--
		}
		o.show("stream", streamText{name, text[:n]})
		text = text[n:]
	}
}

// record shows what one record of standard output holds.
func (o *cellOutput) record(fields []string, bytes int) {
	if len(fields) == 1 && fields[0] == "begin" {
		select {
		case <-o.begun:
		default:
			close(o.begun)
		}
		return
	}
	o.records++
	o.bytes += bytes
	switch {
	case len(fields) == 4 && fields[0] == "error":
		o.failure = &cellFailure{
			Name:      cutText(toUTF8(fields[1]), 200),
			Value:     cutText(toUTF8(fields[2]), o.limit),
			Traceback: strings.Split(cutText(toUTF8(fields[3]), o.limit), "\n"),
		}
	case o.records > maxRecords || o.bytes > maxRecordBytes:
		o.left++
	case len(fields) > 2 && len(fields)%2 == 1 && (fields[0] == "display" || fields[0] == "result"):
		bundle := cellBundle{Data: map[string]string{}}
		for i := 1; i < len(fields); i += 2 {
			mime, data := fields[i], fields[i+1]
			switch {
			case !slices.Contains(cellMIMETypes, mime):
				continue
			case mime == "image/png" || mime == "image/jpeg":
				data = base64.StdEncoding.EncodeToString([]byte(data))
			case mime == "text/plain":
				data = cutText(toUTF8(data), o.limit)
			default:
				data = toUTF8(data)
			}
			bundle.Data[mime] = data
		}
		if fields[0] == "result" {
			o.show("execute_result", bundle)
		} else {
			bundle.Transient = new(struct{})
			o.show("display_data", bundle)
		}
	default:
		o.left++ // another process wrote in between, or the cell forged it
	}
}

// finish shows the output that is held back, when the process has ended and no more will come.
func (o *cellOutput) finish() {
	o.stdout.finish()
	o.stderr.finish()
	o.settle()
}

// follow makes o the successor of last, the output of the cell before, and shows what last holds back. A record that last has in
// part is still completed there.
func (o *cellOutput) follow(last *cellOutput) {
	o.stdout.follow(last.stdout)
	o.stderr.follow(last.stderr)
	last.settle()
}

// settle shows the output that is held back at the end of the cell. Threads and processes of the cell may write more after that.
func (o *cellOutput) settle() {
	o.stdout.settle()
	o.stderr.settle()
	if o.left > 0 {
		o.showText("stderr", fmt.Sprintf("[%d things to show were left out: they were damaged, or more than %d or %d MiB in all]\n",
			o.left, maxRecords, maxRecordBytes>>20))
		o.left = 0
	}
}
