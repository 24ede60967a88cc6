package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Jupyter serves the part of the Jupyter Server API that code interpreters use: kernels, and a WebSocket for each. A kernel gets
// a confined process with its first cell and keeps it until the kernel ends, with all names, imports, files and figures. Kernels
// hold at most half of `workers max`.
type Jupyter struct {
	// The token that clients must send, in the query (`token`) or as `Authorization: token …` or `Bearer …`.
	// Placeholders such as `{env.JUPYTER_TOKEN}` are replaced. Default: none, and clients need none
	Token string `json:"token,omitempty"`
}

// parseJupyter takes on, off or a block.
func (h *Handler) parseJupyter(d *caddyfile.Dispenser, word string) error {
	if d.NextArg() {
		value := d.Val()
		if value != "on" && value != "off" || d.NextArg() {
			return d.Errf("%s %q is unknown: use %s on, %s off, or a block", word, d.Val(), word, word)
		}
		if value == "on" {
			h.Jupyter = new(Jupyter)
		}
		return noBlock(d, word)
	}
	h.Jupyter = new(Jupyter)
	return h.block(d, word+" ", map[string]parser{"token": stringParser(&h.Jupyter.Token)})
}
