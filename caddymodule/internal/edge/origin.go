package edge

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
)

// A page on any web site can make a visitor's browser send requests to a server on the visitor's own machine. Without
// these checks such a page would run code in the sandbox and read its answers.

var crossOrigin = http.NewCrossOriginProtection()

// CheckOrigin refuses what a browser sends for another site. Clients that are no browsers send neither of the headers
// that are looked at, and pass. sensitive says that the path matters even for a GET: an event stream hands out a
// session. There the name is looked at in any case, since a browser that was led here by a pointed name sends neither
// header with a GET.
func CheckOrigin(r *http.Request, sensitive bool, hosts ...string) *Problem {
	if !fromBrowser(r) {
		if sensitive && reboundHost(r, hosts) {
			return rebound(r)
		}
		return nil
	}
	if !sensitive && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return nil // the browser itself keeps the answer from the other site
	}
	// GET, HEAD and OPTIONS count as harmless there; these are not.
	unsafe := *r
	unsafe.Method = http.MethodPost
	if err := crossOrigin.Check(&unsafe); err != nil {
		return NewProblem(http.StatusForbidden, metrics.KindCrossOrigin,
			"the request was sent by a web page of another origin, which may not use this sandbox")
	}
	if reboundHost(r, hosts) {
		return rebound(r)
	}
	return nil
}

func rebound(r *http.Request) *Problem {
	return NewProblem(http.StatusForbidden, metrics.KindCrossOrigin, fmt.Sprintf("this machine's own address was reached under the name %q"+
		": use localhost or 127.0.0.1, or list the name under hosts in python_sandbox, or the proxy in front under trusted_proxies", hostOf(r)))
}

func fromBrowser(r *http.Request) bool {
	return r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""
}

// reboundHost recognises DNS rebinding: a site points its own name at 127.0.0.1, and to the browser the sandbox is then
// the site's own origin. A server that is reached on a loopback address has no other name than localhost there, and those
// that the operator lists, unless a proxy that the operator trusts stands in front.
func reboundHost(r *http.Request, hosts []string) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	address, err := netip.ParseAddrPort(local.String())
	if err != nil || !address.Addr().Unmap().IsLoopback() {
		return false
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		return false
	}
	host := hostOf(r)
	if slices.ContainsFunc(hosts, func(name string) bool { return strings.EqualFold(name, host) }) {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.Unmap().IsLoopback()
	}
	return host != "localhost" && !strings.HasSuffix(host, ".localhost")
}

// hostOf is the name that the request was sent to, without port.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// ValidateHosts refuses what no Host header can be, once its port is cut.
func ValidateHosts(hosts []string) error {
	for _, name := range hosts {
		if _, err := netip.ParseAddr(name); err == nil {
			continue
		}
		if strings.ContainsAny(name, "/:*@?#[] \t") || strings.HasSuffix(name, ".") {
			return fmt.Errorf("hosts %q is no host name: give the name alone, without scheme, port or path, such as sandbox.example", name)
		}
	}
	return nil
}
