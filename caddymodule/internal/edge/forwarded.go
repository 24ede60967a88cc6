package edge

import (
	"context"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// ExternalPath is the path as the client sent it, before handle_path or a rewrite cut it, behind the prefix that a
// trusted proxy says it cut itself.
func ExternalPath(r *http.Request) string {
	p := r.URL.EscapedPath()
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && o.URL != nil {
		p = o.URL.EscapedPath()
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if prefix := strings.Trim(r.Header.Get("X-Forwarded-Prefix"), "/"); prefix != "" {
			p = "/" + prefix + p
		}
	}
	return p
}

// ClientAddress is the client's address as Caddy sees it behind trusted proxies, "" outside a request of Caddy's.
func ClientAddress(ctx context.Context) string {
	address, _ := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	return address
}
