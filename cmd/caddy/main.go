// Command caddy is Caddy with its standard modules and the python_sandbox handler.
package main

import (
	"os"
	"runtime"
	"strconv"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule"
)

func main() {
	shareProcessors()
	caddycmd.Main()
}

// shareProcessors leaves half of the processors to what this server is for, unless GOMAXPROCS says otherwise: nearly all that it
// computes is Python's, and idle threads of Go's look for work on processors where Python could run.
func shareProcessors() {
	const name = "GOMAXPROCS"
	if os.Getenv(name) != "" {
		return
	}
	n := max(1, runtime.GOMAXPROCS(0)/2)
	runtime.GOMAXPROCS(n)
	_ = os.Setenv(name, strconv.Itoa(n)) // Caddy would set it anew otherwise
}
