package tests

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// clientsDirective lets the clients of these tests do without a network, see long output, and run side by side.
const clientsDirective = `workers {
	max 48
}
limits {
	output 6000000
}
packages {
	block forbidden-package
	rate 1000 1m
}`

// Every client, over every transport that it has, in every scenario but the long ones.
func TestMCPClients(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	extended := startCaddy(t, caddyOptions{binary: withFixtures(t)})
	c := startCaddy(t, caddyOptions{directive: clientsDirective})
	scenarios := slices.Concat(aloneScenarios, stepScenarios)
	ks := startTalks(t, ctx, c, extended.url, scenarios, func(ks *talks, k *talk) {
		for _, s := range aloneScenarios {
			ks.do(k, s.name)
		}
	})
	t.Cleanup(func() { ks.times.logTable(t, scenarios...) })
	const begun = time.Minute // within this all are at work, on a busy machine too

	callers := ks.with("abandon")
	ks.inStep("abandon", func(int, []*talk) {})
	c.waitHealth(5*time.Second, "the runs go on when their callers are gone", leased(len(callers)))
	c.waitHealth(begun, "they end at their timeout", leased(0))
	ks.again(callers)

	ks.inStep("cancel", func(n int, all []*talk) {
		c.waitHealth(begun, "all at work", leased(n))
		for _, k := range all {
			k.say("now")
		}
	})
	c.waitHealth(time.Second, "the workers of cancelled calls free", leased(0))
	ks.again(ks.with("cancel"))

	ks.inStep("reload", func(n int, _ []*talk) {
		c.waitHealth(begun, "all at work", leased(n))
		c.reload(c.o.directive, "header X-Test 1")
	})
	if resp, err := http.Get(c.url + "/health"); err != nil || resp.Header.Get("X-Test") != "1" {
		t.Errorf("the reload has not taken: %v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	ks.again(ks.with("reload"))

	ks.inStep("leave", func(n int, all []*talk) {
		c.waitHealth(begun, "all at work", leased(n))
		for _, k := range all {
			k.say("now")
		}
	})
	c.waitHealth(time.Second, "the workers of clients that are gone free", leased(0))
}

// A call may last longer than the minute that clients and proxies give a silent request.
func TestMCPCallsLongerThanAMinute(t *testing.T) {
	if testing.Short() {
		t.Skip("this takes 70 s")
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	limit := time.AfterFunc(4*time.Minute, cancel)
	c := startCaddy(t, caddyOptions{directive: clientsDirective})
	// They begin before the tests that run in parallel do, and would otherwise keep one of those waiting.
	ks := startTalks(t, ctx, c, c.url, longScenarios, nil)
	begin, calls := time.Now(), 1
	for _, s := range longScenarios {
		for _, k := range ks.with(s.name) {
			k.say(s.name)
			calls++
		}
	}
	first := make(chan struct{})
	go func() {
		defer close(first)
		checkFirstByte(t, c)
	}()
	t.Cleanup(func() { <-first })
	c.waitHealth(time.Minute, "all at work", leased(calls)) // from now on they cost the others nothing
	limit.Stop()                                            // tests before this one may take longer than its clients may
	t.Parallel()
	limit.Reset(4 * time.Minute)
	for _, s := range longScenarios {
		for _, k := range ks.with(s.name) {
			ks.ended(k, s.name, begin)
		}
	}
	ks.times.logTable(t, longScenarios...)
}

// checkFirstByte makes a long call that wants no progress. Its answer begins in time all the same.
func checkFirstByte(t testing.TB, c *caddy) {
	w := &wire{TB: t, c: c, path: "/mcp"}
	begin := time.Now()
	resp, err := (&http.Client{}).Do(w.request(toolCall(1, "execute_python", "",
		map[string]any{"code": "import time; time.sleep(62); print('at last')", "timeout": 100})))
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	first, last, longest := time.Since(begin), time.Now(), time.Duration(0)
	var body strings.Builder
	buf := make([]byte, 1<<16)
	for {
		n, err := resp.Body.Read(buf)
		longest, last = max(longest, time.Since(last)), time.Now()
		body.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	if messages := events(body.String()); first > stretched(25*time.Second, begin) || longest > stretched(25*time.Second, begin) || len(messages) != 1 || !strings.Contains(messages[0], `at last\n`) {
		t.Errorf("the first byte came after %s, and the longest silence was %s: %s", first, longest, body.String())
	}
}
