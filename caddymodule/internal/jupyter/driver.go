package jupyter

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// displaySource and driverSource run cells and show what a notebook would; the latter says how it frames that.
var (
	//go:embed display.py
	displaySource string
	//go:embed driver.py
	driverSource string
)

// driverLiteral is the source of both as a Python literal: Go's escapes are Python's, too.
var driverLiteral = strconv.QuoteToASCII(displaySource + driverSource)

// driver is the program of every kernel's process: its source until one process has compiled it for the others, whose
// first cells then wait some milliseconds less. It is safe for concurrent use.
type driver struct {
	limit    int // of the text that a cell shows, in characters
	compile  sync.Once
	compiled atomic.Pointer[string] // a Python expression, nil for none yet
}

// program returns what a process runs. The names of cells are not in its way.
func (d *driver) program() string {
	code := "compile(" + driverLiteral + ", '<kernel>', 'exec')"
	if compiled := d.compiled.Load(); compiled != nil {
		code = *compiled + " or " + code
	}
	return fmt.Sprintf("exec(%s, {'__name__': '<kernel>', '__file__': '<kernel>', 'limit': %d})", code, d.limit)
}

// compileProgram says which Python it is, and what that makes of the driver.
var compileProgram = "import sys, marshal, binascii\nprint(sys.hexversion, binascii.b2a_base64(marshal.dumps(compile(" + driverLiteral +
	", '<kernel>', 'exec')), newline=False).decode())"

// compileDriver has the driver compiled, once. What comes of it is run where it came from, in workers, and never by another
// Python. Without it processes begin with the source.
func (f *Front) compileDriver() {
	if isClosed(f.stop) {
		return
	}
	f.driver.compile.Do(func() {
		f.work.Go(func() {
			ctx, cancel := context.WithTimeout(f.ctx, time.Minute)
			defer cancel()
			var out bytes.Buffer
			if _, err := f.ex.Session(ctx, operation.SessionInput{ID: operation.NewID(), Driver: compileProgram, Stdout: func(b []byte) { out.Write(b) }}); err != nil {
				return
			}
			version, code, _ := strings.Cut(strings.TrimSpace(out.String()), " ")
			if _, err := strconv.ParseUint(version, 10, 32); err != nil {
				return
			}
			if raw, err := base64.StdEncoding.DecodeString(code); err != nil || len(raw) == 0 {
				return
			}
			expression := fmt.Sprintf("(__import__('sys').hexversion == %s and __import__('marshal').loads(__import__('binascii').a2b_base64('%s')))", version, code)
			f.driver.compiled.Store(&expression)
		})
	})
}

// cellFrame is what the driver takes as a cell.
func cellFrame(mark string, count int, code string) []byte {
	return fmt.Appendf(nil, "%s %d %d\n%s", mark, count, len(code), code)
}
