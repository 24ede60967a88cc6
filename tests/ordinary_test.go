package tests

import (
	"testing"
)

// In every world the standard streams can be opened by their names, by a program and by what it starts.
func TestStandardStreamsByName(t *testing.T) {
	inEachWorld(t, "", func(t *testing.T, c *caddy) {
		const code = `
import os, subprocess, sys
print("first", flush=True)
with open("/dev/stdout", "w") as f: f.write("by its name\n")
with open("/dev/stderr", "a") as f: f.write("an error\n")
with open("/proc/self/fd/1", "w") as f: f.write("by its number\n")
with open("/dev/fd/1", "w") as f: f.write("by the other name\n")
with open("/dev/stdin") as f: print("read", f.read().strip(), flush=True)
for shell in ("echo from a shell > /dev/stdout", "echo from a shell > /proc/self/fd/1", "echo an error of a shell > /dev/stderr", "echo through tee | tee /dev/stderr"):
    subprocess.run(shell, shell=True, check=True)
os.system("exec 5> /dev/stdout; echo kept open >&5")
`
		for range 3 { // each run has pipes of its own
			a, err := c.execute(t.Context(), map[string]any{"code": code, "stdin": "what was sent\n"})
			if err != nil {
				t.Fatal(err)
			}
			const out = "first\nby its name\nby its number\nby the other name\nread what was sent\nfrom a shell\nfrom a shell\nthrough tee\nkept open\n"
			if a.Stdout != out || a.Stderr != "an error\nan error of a shell\nthrough tee\n" || a.ExitCode != 0 {
				t.Errorf("%s", a.raw)
			}
		}
		c.mustPrint("print(open('/dev/stdin').read() == '')", "True\n")
	})
}
