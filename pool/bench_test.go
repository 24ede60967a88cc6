package pool

import (
	"context"
	"testing"
	"time"
)

// BenchmarkExecute measures a saturated pool without HTTP, with 4 callers for each core, as bench/ does over HTTP.
func BenchmarkExecute(b *testing.B) {
	p, err := New(context.Background(), Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := p.Execute(context.Background(), Request{Code: "print(1)", Timeout: 10 * time.Second})
			if err != nil || r.Stdout != "1\n" {
				b.Errorf("got %+v, %v", r, err)
			}
		}
	})
}
