package main

import (
	"slices"
	"time"
)

// percentile sorts the latencies and returns the one below which share of them lie, 0 when there are none.
func percentile(latencies []time.Duration, share float64) time.Duration {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	return latencies[min(len(latencies)-1, int(share*float64(len(latencies))))]
}

func milliseconds(d time.Duration) float64 {
	return float64(d) / float64(time.Millisecond)
}
