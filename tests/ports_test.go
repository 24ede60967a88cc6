package tests

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
)

// reservations holds the sockets that reserve ports, by address.
var reservations sync.Map

// freeAddr returns a loopback address that nothing listens on, and that no other call gets, in this process or another one, before this
// process ends. A port that the kernel chose would not do: between its choice and the start of Caddy the kernel gives it to the next who
// asks, and two Caddys share a port without an error, because they listen with SO_REUSEPORT.
func freeAddr(t testing.TB) string {
	t.Helper()
	low, high := ephemeralPorts(t)
	for range 1000 {
		port := 10240 + rand.IntN(65536-10240)
		if low <= port && port <= high {
			continue
		}
		// The name of an abstract socket is held until its process ends, however it does.
		reservation, err := net.Listen("unix", fmt.Sprintf("@sandbox-test-port-%d", port))
		if err != nil {
			continue
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			_ = reservation.Close()
			continue
		}
		_ = l.Close()
		reservations.Store(addr, reservation)
		return addr
	}
	t.Fatal("no free port outside of the range of ports that the kernel chooses from")
	return ""
}

// ephemeralPorts is the range from which the kernel chooses ports for clients and for servers that leave the choice to it.
func ephemeralPorts(t testing.TB) (low, high int) {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		t.Fatal(err)
	}
	return low, high
}

func TestFreeAddressesAreOutsideOfTheKernelsRangeAndGivenOnce(t *testing.T) {
	t.Parallel()
	low, high := ephemeralPorts(t)
	seen := map[string]bool{}
	for range 50 {
		addr := freeAddr(t)
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		var number int
		if _, err := fmt.Sscan(port, &number); err != nil {
			t.Fatal(err)
		}
		if seen[addr] || low <= number && number <= high {
			t.Errorf("%s, given before: %t; the kernel's range is %d to %d", addr, seen[addr], low, high)
		}
		seen[addr] = true
	}
}
