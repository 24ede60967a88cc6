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

// normalHost returns a host with its port in the one form in which hosts are compared, or "" for what is none. The port
// is HTTPS's where none is said.
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
		if name, err = idna.Lookup.ToASCII(name); err != nil { // which would refuse the _ that some networks use
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

// shownHost is a host as a person writes it: without HTTPS's port.
func shownHost(host string) string { return strings.TrimSuffix(host, ":443") }

// isLoopback says whether a URL stays on this machine. Like pip it asks no resolver.
func isLoopback(u *url.URL) bool {
	name := strings.ToLower(u.Hostname())
	address, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && address.IsLoopback()
}

// redactURL returns a URL that can be shown: without who asks, and without query, which may be a signature.
func redactURL(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		return u.String()
	}
	if before, after, found := strings.Cut(raw, "//"); found {
		return before + "//" + after[strings.LastIndex(after, "@")+1:]
	}
	return raw
}

// parseIndexURL checks an address of pip's configuration; word is the setting's name.
func parseIndexURL(word, raw string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil || hostOf(u) == "" {
		return nil, fmt.Errorf("%s of pip's configuration is %q: use an http or https address", word, redactURL(raw))
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}
