package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// checkReport is what `caddy python-sandbox check` says, and its JSON.
type checkReport struct {
	// Held is true when every sandbox works and all of its guarantees are held.
	Held bool `json:"held"`
	// Advice is what to do next, in a sentence.
	Advice    string          `json:"advice"`
	Version   string          `json:"version"`
	Kernel    checkedKernel   `json:"kernel"`
	UserID    int             `json:"user_id"`
	Sandboxes []sandboxReport `json:"sandboxes"`
}

// checkedKernel is what uname says.
type checkedKernel struct {
	Name    string `json:"name"`
	Release string `json:"release"`
	Machine string `json:"machine"`
}

// sandboxReport is about one python_sandbox, or about several that are set alike.
type sandboxReport struct {
	// Where holds the paths in the configuration; empty for the defaults.
	Where []string `json:"where"`
	// Isolation is what was asked for.
	Isolation string `json:"isolation"`
	// Refusal says why isolation strict does not start; the other fields are then about best_effort.
	Refusal string `json:"refusal,omitempty"`
	// Error says why there is no sandbox at all, or why it runs nothing.
	Error      string                  `json:"error,omitempty"`
	Python     *operation.HealthPython `json:"python,omitempty"`
	Limits     operation.HealthLimits  `json:"limits"`
	Guarantees []operation.Guarantee   `json:"guarantees"`
}

func newCheckReport() *checkReport {
	c := &checkReport{Held: true, Version: operation.Version(), UserID: os.Geteuid(), Sandboxes: []sandboxReport{}}
	var name unix.Utsname
	if unix.Uname(&name) == nil { // it fails for a bad address only
		c.Kernel = checkedKernel{unix.ByteSliceToString(name.Sysname[:]), unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])}
	}
	return c
}

func (c *checkReport) add(r sandboxReport) {
	c.Sandboxes = append(c.Sandboxes, r)
	c.Held = c.Held && r.Error == "" && r.Refusal == "" && r.notHeld() == 0
	c.Advice = c.advice()
}

// notHeld counts the guarantees that nothing holds.
func (r *sandboxReport) notHeld() int {
	n := 0
	for _, g := range r.Guarantees {
		if len(g.Layers) == 0 {
			n++
		}
	}
	return n
}

// advice says what to do about the worst that was found.
func (c *checkReport) advice() string {
	missing, none, failed := 0, false, false
	for _, r := range c.Sandboxes {
		missing += r.notHeld()
		none = none || r.Isolation == string(pool.IsolationNone)
		failed = failed || r.Error != ""
	}
	switch {
	case failed:
		return "The sandbox does not work here: do what the error says, and check again."
	case none:
		return "User code is not confined, since isolation is none: set isolation strict, or leave the word out, and check again."
	case missing > 0:
		count := strconv.Itoa(missing) + " guarantees are"
		if missing == 1 {
			count = "1 guarantee is"
		}
		return count + " not held: allow user namespaces for Caddy or run it on a newer kernel, as docs/security.md tells, and check again; " +
			"isolation best_effort starts without, for code that you trust."
	case !c.Held:
		return "Isolation strict does not start here: do what the refusal says, and check again."
	default:
		return "Every guarantee is held: this system can run the sandbox with isolation strict."
	}
}

func (c *checkReport) print(w io.Writer, asJSON bool) error {
	var out bytes.Buffer
	if asJSON {
		encoder := json.NewEncoder(&out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(c); err != nil {
			return fmt.Errorf("encoding the result: %w", err)
		}
	} else {
		for i := range c.Sandboxes {
			c.printSandbox(&out, &c.Sandboxes[i])
			out.WriteByte('\n')
		}
		out.WriteString(c.Advice + "\n")
	}
	if _, err := w.Write(out.Bytes()); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// printSandbox ignores errors, since writing to memory does not fail.
func (c *checkReport) printSandbox(out *bytes.Buffer, r *sandboxReport) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(table, strings.Join(cells, "\t")) } //nolint:errcheck // likewise
	for _, where := range r.Where {
		line("sandbox", where)
	}
	if r.Python != nil {
		line("python", r.Python.Version+", "+r.Python.Executable)
	}
	line("kernel", c.Kernel.Name+" "+c.Kernel.Release+", "+c.Kernel.Machine)
	line("user", userText(c.UserID))
	if r.Isolation != "" {
		line("isolation", r.Isolation)
		line("limits", limitsText(r.Limits))
	}
	if r.Refusal != "" {
		line("refused", r.Refusal)
	}
	if r.Error != "" {
		line("error", r.Error)
	}
	_ = table.Flush()
	if len(r.Guarantees) == 0 {
		return
	}
	out.WriteByte('\n')
	if r.Refusal != "" {
		out.WriteString("Isolation strict does not start here. This is what best_effort holds:\n\n")
	}
	line("GUARANTEE", "HELD BY")
	for _, g := range r.Guarantees {
		held := strings.Join(g.Layers, ", ")
		if held == "" {
			held = "NOT HELD: " + g.Reason
		}
		line(g.Name, held)
	}
	_ = table.Flush()
}

func userText(id int) string {
	if id == 0 {
		return "root"
	}
	return "id " + strconv.Itoa(id)
}

func limitsText(l operation.HealthLimits) string {
	seconds := func(s float64) string { return time.Duration(s * float64(time.Second)).String() }
	return strings.Join([]string{
		"time " + seconds(l.ExecuteTimeout) + " (at most " + seconds(l.ExecuteTimeoutMax) + ")",
		"memory " + operation.SizeText(l.MemoryBytes), "processes " + strconv.Itoa(l.Processes), "open files " + strconv.Itoa(l.OpenFiles),
		"scratch " + operation.SizeText(l.ScratchBytes), "output " + strconv.Itoa(l.OutputCharacters) + " characters of each stream (ended at " + operation.SizeText(l.OutputKillBytes) + ")",
		"request body " + operation.SizeText(l.RequestBodyBytes),
	}, ", ")
}
