package caddymodule

import (
	"reflect"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Matchers that let different requests through must have different descriptions, or kernels could pass to a site that others may enter.
func TestMatchersAreDescribed(t *testing.T) {
	t.Parallel()
	not := func(matchers ...any) *caddyhttp.MatchNot {
		return &caddyhttp.MatchNot{MatcherSets: []caddyhttp.MatcherSet{matchers}}
	}
	hidden := &struct{ secret string }{"x"}
	for name, c := range map[string]struct {
		sets caddyhttp.MatcherSets
		want [][]string // nil for no description
	}{
		"none":         {nil, [][]string{}},
		"all requests": {caddyhttp.MatcherSets{{}}, [][]string{{}}},
		"two, in any order": {
			caddyhttp.MatcherSets{{&caddyhttp.MatchPath{"/a"}, &caddyhttp.MatchHost{"h"}}},
			[][]string{{`*caddyhttp.MatchHost ["h"]`, `*caddyhttp.MatchPath ["/a"]`}},
		},
		"alternatives": {
			caddyhttp.MatcherSets{{&caddyhttp.MatchHost{"h"}}, {&caddyhttp.MatchPath{"h"}}},
			[][]string{{`*caddyhttp.MatchHost ["h"]`}, {`*caddyhttp.MatchPath ["h"]`}},
		},
		"not":                    {caddyhttp.MatcherSets{{not(&caddyhttp.MatchPath{"/a"})}}, [][]string{{`*caddyhttp.MatchNot [["*caddyhttp.MatchPath [\"/a\"]"]]`}}},
		"one that shows nothing": {caddyhttp.MatcherSets{{hidden}}, nil},
		"not what shows nothing": {caddyhttp.MatcherSets{{not(hidden)}}, nil},
		"one without JSON":       {caddyhttp.MatcherSets{{make(chan int)}}, nil},
	} {
		got, err := describeMatchers(c.sets)
		if (err == nil) != (c.want != nil) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
	}
}
