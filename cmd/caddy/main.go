// Command caddy is Caddy with its standard modules and the python_sandbox handler.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule"
)

func main() {
	caddycmd.Main()
}
