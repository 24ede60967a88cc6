package packages

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// normalHost returns HOST or HOST:PORT as HOST:PORT in the form in which hosts are compared, or "" when it is neither. The
// default port is 443.
func normalHost(host string) string { return hostWithPort(host, "443") }

// hostOf returns the host and port that a URL leads to, or "" when it leads to none.
func hostOf(u *url.URL) string {
	switch u.Scheme {
	case "https":
		return hostWithPort(u.Host, "443")
	case "http":
		return hostWithPort(u.Host, "80")
	}
	return ""
}

func hostWithPort(host, port string) string {
	u, err := url.Parse("//" + host)
	if err != nil || u.Host != host || u.Hostname() == "" || strings.HasSuffix(host, ":") {
		return ""
	}
	name := strings.ToLower(u.Hostname())
	if address, err := netip.ParseAddr(name); err == nil {
		name = address.String()
	} else if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		if name, err = idna.Lookup.ToASCII(name); err != nil { // not for ASCII names: it refuses the _ that some networks use
			return ""
		}
	} else if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return ""
	}
	if u.Port() != "" {
		port = u.Port()
	}
	return net.JoinHostPort(name, port)
}

// shownHost returns a host for messages, without the port of HTTPS.
func shownHost(host string) string { return strings.TrimSuffix(host, ":443") }

// isLoopback says whether a URL's host is localhost or a loopback address. Like pip it does not resolve other names.
func isLoopback(u *url.URL) bool {
	name := strings.ToLower(u.Hostname())
	address, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && address.IsLoopback()
}

// redactURL returns a URL for messages, without user, password and fragment, and without the query, which may be a signature. It also
// takes texts that are no URL, such as one that lacks "http://": what an operator has mistyped may hold a password, too.
func redactURL(raw string) string {
	shown, _, _ := strings.Cut(raw, "#")
	scheme, rest, found := strings.Cut(shown, "//")
	if !found {
		scheme, rest = "", shown
	} else {
		scheme += "//"
	}
	rest = rest[strings.LastIndex(rest, "@")+1:] // a password may have "/", "?" or "@" in it where it is not encoded
	rest, _, _ = strings.Cut(rest, "?")
	return scheme + rest
}

// parseIndexURL parses a URL of pip's configuration, which must be http or https; word is the setting's name.
func parseIndexURL(word, raw string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil || hostOf(u) == "" {
		return nil, fmt.Errorf("%s of pip's configuration is %q: use an http or https address", word, redactURL(raw))
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}
