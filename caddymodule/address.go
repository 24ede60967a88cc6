package caddymodule

import (
	"net"
	"os"
)

// The shipped Caddyfile answers every Host on one address, which takes a site address with only a port and a bind with
// only a host, and a Caddyfile cannot split host:port. So SANDBOX_ADDRESS is split before Caddy reads any
// configuration.
func init() { splitAddress(os.LookupEnv, os.Setenv) }

// splitAddress sets SANDBOX_HOST and SANDBOX_PORT from SANDBOX_ADDRESS, when that is set and they are not.
func splitAddress(lookup func(string) (string, bool), set func(name, value string) error) {
	address, ok := lookup("SANDBOX_ADDRESS")
	if !ok || address == "" {
		return
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = "", address // Caddy's message about the port then shows what was given
	}
	for name, value := range map[string]string{"SANDBOX_HOST": host, "SANDBOX_PORT": port} {
		if _, taken := lookup(name); !taken {
			_ = set(name, value)
		}
	}
}
