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

// displaySource and driverSource are the program of a kernel's process. The docstring of driver.py describes its protocol.
var (
	//go:embed display.py
	displaySource string
	//go:embed driver.py
	driverSource string
)

// driverLiteral is the source of both as a Python string literal. The escapes of QuoteToASCII mean the same in Python.
var driverLiteral = strconv.QuoteToASCII(displaySource + driverSource)

// driver is the program of every kernel's process. Processes compile its source themselves until a worker has compiled it for all;
// after that, first cells start some milliseconds sooner. It is safe for concurrent use.
type driver struct {
	limit    int // characters of a text that the driver sends before it cuts the middle out
	compile  sync.Once
	compiled atomic.Pointer[string] // a Python expression for the code object, or for false in another Python; nil for none yet
}

// program returns the code that a process runs. The driver gets a namespace of its own, apart from the __main__ of cells.
func (d *driver) program() string {
	code := "compile(" + driverLiteral + ", '<kernel>', 'exec')"
	if compiled := d.compiled.Load(); compiled != nil {
		code = *compiled + " or " + code
	}
	return fmt.Sprintf("exec(%s, {'__name__': '<kernel>', '__file__': '<kernel>', 'limit': %d})", code, d.limit)
}

// compileProgram prints the version of the Python that runs it, and the driver as that Python compiles it (marshal, in base64).
var compileProgram = "import sys, marshal, binascii\nprint(sys.hexversion, binascii.b2a_base64(marshal.dumps(compile(" + driverLiteral +
	", '<kernel>', 'exec')), newline=False).decode())"

// compileDriver lets a worker compile the driver, in a goroutine and once only. What the worker answers is not trusted: it is run in
// workers only, and only by the same version of Python. If compiling fails, processes go on compiling the source.
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

// cellFrame encodes a cell as the driver reads it.
func cellFrame(mark string, count int, code string) []byte {
	return fmt.Appendf(nil, "%s %d %d\n%s", mark, count, len(code), code)
}
