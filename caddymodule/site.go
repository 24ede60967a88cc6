package caddymodule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// siteOf describes which requests reach a handler: the addresses of its server, and the matchers of each route on the way to it.
// A handler of the next configuration with the same description is reached by the same requests. When Caddy does not show the
// whole way, the description is one that no other handler ever has.
//
// It must be called by Provision: Caddy provisions the routes of a list one after the other, and removes the JSON of a route's
// handlers once they are loaded (caddy.Context.LoadModule). So the first route that still has it leads to the handler.
func siteOf(ctx caddy.Context) string {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return uniqueSite()
	}
	way := []any{server.Listen}
	lists := []caddyhttp.RouteList{server.Routes}
	for _, module := range ctx.Modules() {
		switch module := module.(type) {
		case *caddyhttp.App, *Handler:
		case *caddyhttp.Subroute:
			lists = append(lists, module.Routes)
		default:
			return uniqueSite()
		}
	}
	for _, routes := range lists {
		i := slices.IndexFunc(routes, func(r caddyhttp.Route) bool { return len(r.HandlersRaw) > 0 })
		if i < 0 { // the way leads through the routes for errors, or a named route
			return uniqueSite()
		}
		matchers, err := describeMatchers(routes[i].MatcherSets)
		if err != nil {
			return uniqueSite()
		}
		way = append(way, matchers)
	}
	text, err := json.Marshal(way)
	if err != nil {
		return uniqueSite()
	}
	return string(text)
}

// describeMatchers returns the type and the settings of each matcher, in an order that does not depend on that of Go's maps.
func describeMatchers(sets caddyhttp.MatcherSets) ([][]string, error) {
	described := [][]string{}
	for _, set := range sets {
		words := []string{}
		for _, matcher := range set {
			word, err := describeMatcher(matcher)
			if err != nil {
				return nil, err
			}
			words = append(words, word)
		}
		slices.Sort(words)
		described = append(described, words)
	}
	return described, nil
}

func describeMatcher(matcher any) (string, error) {
	settings := matcher
	if not, ok := matcher.(*caddyhttp.MatchNot); ok { // its own JSON is empty once it is provisioned
		var err error
		if settings, err = describeMatchers(not.MatcherSets); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return "", fmt.Errorf("encoding a matcher: %w", err)
	}
	if slices.Contains([]string{"{}", "null", `""`}, string(text)) {
		return "", fmt.Errorf("the matcher %T does not show what it matches", matcher)
	}
	return fmt.Sprintf("%T %s", matcher, text), nil
}

var sites atomic.Int64

func uniqueSite() string { return "site " + strconv.FormatInt(sites.Add(1), 10) }

// siteClaim is a handler's claim to its site's description within one configuration.
type siteClaim struct {
	server *caddyhttp.Server
	site   string
}

var claims sync.Map // a set of siteClaim

// claimSite returns the description of the handler's site, or a unique one when another handler of the same configuration has
// claimed it: the next configuration could not tell the two apart.
func (h *Handler) claimSite(ctx caddy.Context) string {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	claim := siteClaim{server, siteOf(ctx)}
	if _, taken := claims.LoadOrStore(claim, struct{}{}); taken {
		return uniqueSite()
	}
	h.claim = claim
	return claim.site
}
