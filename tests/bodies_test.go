package tests

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// residentBytes is what a process holds of memory.
func residentBytes(t testing.TB, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if match == nil {
		t.Fatalf("no VmRSS in %s", text)
	}
	kib, err := strconv.ParseInt(string(match[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// A length that a client announces costs the server nothing before the bytes come.
func TestAnnouncedBodiesCostNothing(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "workers {\n idle 1\n max 2\n }\njupyter on"})
	c.mustPrint("print(1)", "1\n")
	before := residentBytes(t, c.pid())
	for _, path := range []string{"/execute", "/pip_install", "/mcp", "/jupyter/api/kernels"} {
		for range 300 {
			conn, err := net.Dial("tcp", c.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, 10<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Caddy has a goroutine for each by the time that it answers somebody behind all of them.
	eventually(t, 20*time.Second, "1200 requests are being read", func() bool { return c.goroutines() > 1200 })
	c.mustPrint("print(2)", "2\n")
	if grown := residentBytes(t, c.pid()) - before; grown > 64<<20 {
		t.Errorf("Caddy has grown by %d MiB", grown>>20)
	}
}

// The bodies of all requests together are bounded, and a request that finds no room is refused in words, not lost.
func TestBodiesAreBoundedInAll(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "workers {\n idle 2\n max 8\n }\nlimits {\n request_body 4MiB\n request_bodies 6MiB\n }"})
	held, err := net.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	body := `{"code": "print(1)", "stdin": "` + strings.Repeat("x", 3<<20)
	if _, err := fmt.Fprintf(held, "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body)+2, body); err != nil {
		t.Fatal(err)
	}
	large := map[string]string{"code": "print(1)", "stdin": strings.Repeat("x", 3<<20)}
	eventually(t, 20*time.Second, "a large request finds no room", func() bool {
		a, err := c.execute(t.Context(), large)
		return err == nil && a.code == http.StatusServiceUnavailable && strings.Contains(a.raw, "limits request_bodies") && a.header.Get("Retry-After") != ""
	})
	c.mustPrint("print('small')", "small\n")
	if _, err := held.Write([]byte(`"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "there is room again", func() bool {
		a, err := c.execute(t.Context(), large)
		return err == nil && a.code == http.StatusOK
	})
}
