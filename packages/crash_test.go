package packages

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// installForever installs one set after the other, and prints each before the switch and after it.
func installForever(t *testing.T, dir string) {
	s := openStore(t, dir)
	for {
		i := begin(t, s)
		var wheels []testWheel
		for _, name := range []string{"a", "b", "c", "d"} {
			if rand.IntN(4) > 0 {
				wheels = append(wheels, synthetic(name, 1+rand.IntN(3)))
			}
		}
		g := build(t, i, wheels...)
		fmt.Println("begin", g.Number, names(g))
		if rand.IntN(4) > 0 { // one in four installs ends without a switch
			if err := i.Switch(context.Background(), g); err != nil {
				t.Fatal(err)
			}
			fmt.Println("done", g.Number, names(g))
		}
		i.End()
	}
}

func names(g *Generation) string {
	var names []string
	for _, p := range g.Packages {
		names = append(names, p.Name+"-"+p.Version)
	}
	return strings.Join(names, ",")
}

// Whenever an installing process is killed, the next Open finds the set of the last finished switch, or that of the switch under
// way, complete, and no leftovers.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("kills processes for 15 s")
	}
	dir := t.TempDir()
	last, lastNames, switched := 0, "", 0
	deadline := time.Now().Add(15 * time.Second)
	round := 0
	for ; round < 40 && time.Now().Before(deadline); round++ {
		cmd := childCommand(t, "install", dir)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		begun := map[int]string{}
		left := 1 + rand.IntN(4)
		near, read := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(read)
			for lines := bufio.NewScanner(out); lines.Scan(); {
				var word, names string
				var number int
				if n, _ := fmt.Sscan(lines.Text(), &word, &number, &names); n < 2 {
					t.Errorf("the child says %q", lines.Text())
					continue
				}
				if word == "begin" {
					begun[number] = names
				} else {
					last, lastNames = number, names
					switched++
				}
				if left--; left == 0 {
					close(near)
				}
			}
		}()
		select {
		case <-near: // the child has just built a set or finished a switch
		case <-time.After(10 * time.Second):
			t.Error("the child does not install")
		}
		time.Sleep(rand.N([]time.Duration{time.Millisecond, 10 * time.Millisecond, 150 * time.Millisecond}[round%3]))
		must(t, cmd.Process.Kill())
		<-read
		_ = cmd.Wait()

		s := openStore(t, dir)
		g := s.Current()
		expected := lastNames
		if g.Number != last {
			expected = begun[g.Number]
		}
		if g.Number < last || names(g) != expected {
			t.Errorf("round %d: got generation %d with %q, and the last switch was to %d with %q; begun: %v", round, g.Number, names(g), last, lastNames, begun)
		}
		last, lastNames = g.Number, names(g)
		g.Release()
		must(t, s.Close())
		checkWhole(t, dir)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d kills, %d switches, the last to generation %d", round, switched, last)
	if round < 10 || switched < 10 {
		t.Errorf("only %d kills and %d switches in the time", round, switched)
	}
}
