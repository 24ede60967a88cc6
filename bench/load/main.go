// Command load sends POST /execute to one server in a closed loop and prints
// what it saw as JSON: median, p99, runs a second, errors and wrong answers.
//
// It shares the cores with the server that it measures, so it writes and reads
// HTTP/1.1 on bare connections, in one loop around epoll(7), and allocates next
// to nothing.
// Each request carries a nonce of its own, and the answer must print it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// report is the output of the command. Latencies cover the runs that began
// after the warm-up; errors and wrong answers count at any time.
type report struct {
	Clients       int     `json:"clients"`
	Runs          int     `json:"runs"`
	Seconds       float64 `json:"seconds"`
	RunsPerSecond float64 `json:"runs_per_second"`
	P50           float64 `json:"p50_ms,omitempty"`
	P99           float64 `json:"p99_ms,omitempty"`
	Max           float64 `json:"max_ms,omitempty"`
	Errors        int     `json:"errors"`
	Wrong         int     `json:"wrong"`
	// FirstFault says in words what the first error or wrong answer was.
	FirstFault string `json:"first_fault,omitempty"`
	// CPUSeconds is what the generator itself used: the distortion of the measurement.
	CPUSeconds float64 `json:"generator_cpu_s"`
}

func main() {
	var (
		address = flag.String("address", "", "host:port of the server")
		clients = flag.Int("clients", 1, "connections, each with one request at a time")
		seconds = flag.Duration("duration", 3*time.Second, "how long to measure")
		warmup  = flag.Duration("warmup", 500*time.Millisecond, "how long to load the server before that")
		think   = flag.Duration("think", 0, "pause of a client between two requests")
		code    = flag.String("code", `print("NONCE")`, "Python to run; NONCE becomes a new word in each request")
	)
	flag.Parse()
	// One loop needs no second thread, and one that looks for work would take
	// processor time from the server, as would collecting the little that is
	// allocated in some seconds.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)

	result, err := run(*address, *code, *clients, *warmup, *seconds, *think)
	if err != nil {
		fmt.Fprintf(os.Stderr, "load: %v\n", err)
		os.Exit(2)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fmt.Fprintf(os.Stderr, "load: writing the report: %v\n", err)
		os.Exit(1)
	}
}

// run loads the server with the given number of clients and sums up what they saw.
func run(address, code string, clients int, warmup, measured, think time.Duration) (report, error) {
	resolved, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return report{}, fmt.Errorf("address %q: %w", address, err)
	}
	server := netip.AddrPortFrom(resolved.AddrPort().Addr().Unmap(), resolved.AddrPort().Port())
	all := make([]*client, clients)
	for i := range all {
		if all[i], err = newClient(server, code, i); err != nil {
			return report{}, err
		}
	}
	begin := time.Now().Add(warmup)
	l := loop{clients: all, begin: begin, end: begin.Add(measured), think: think}
	if err := l.run(); err != nil {
		return report{}, err
	}
	return summarize(all, measured), nil
}

func summarize(all []*client, measured time.Duration) report {
	sum := report{Clients: len(all), Seconds: measured.Seconds()}
	var latencies []time.Duration
	for _, c := range all {
		latencies = append(latencies, c.latencies...)
		sum.RunsPerSecond += c.rate()
		sum.Errors += c.errors
		sum.Wrong += c.wrong
		if sum.FirstFault == "" {
			sum.FirstFault = c.firstFault
		}
	}
	sum.Runs = len(latencies)
	sum.P50 = milliseconds(percentile(latencies, 0.50))
	sum.P99 = milliseconds(percentile(latencies, 0.99))
	sum.Max = milliseconds(percentile(latencies, 1))
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		sum.CPUSeconds = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	}
	return sum
}
