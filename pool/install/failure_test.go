package install

import (
	"errors"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
)

// Messages of pip (versions 22 to 26) when it cannot resolve, and what the caller is told for each.
func TestPipFailures(t *testing.T) {
	t.Parallel()
	wheel := func(version, python string) packages.File {
		return packages.File{Name: "one-" + version + "-py3-none-any.whl", Version: version, Wheel: true, RequiresPython: python}
	}
	sdist := packages.File{Name: "one-1.0.tar.gz", Version: "1.0", Sdist: true}
	for _, c := range []struct {
		name, log string
		files     []packages.File
		specifier string
		status    Status
		words     []string
	}{
		{"no such version", "ERROR: Could not find a version that satisfies the requirement one==9 (from versions: 1.0, 2.0)\nERROR: No matching distribution found for one==9\n",
			[]packages.File{wheel("1.0", ""), wheel("2.0", "")}, "==9", NotFound, []string{`"==9"`, "1.0, 2.0"}},
		{"a dependency is not there", "ERROR: Could not find a version that satisfies the requirement two>1 (from one) (from versions: none)\nERROR: No matching distribution found for two>1\n",
			[]packages.File{wheel("1.0", "")}, "", NotFound, []string{"one needs two>1"}},
		{"source only", "ERROR: Could not find a version that satisfies the requirement one (from versions: none)\nERROR: No matching distribution found for one\n",
			[]packages.File{sdist}, "", NoWheel, []string{"source only", "packages sdist allow"}},
		{"wheels for others", "ERROR: Could not find a version that satisfies the requirement one (from versions: none)\nERROR: No matching distribution found for one\n",
			[]packages.File{wheel("1.0", "")}, "", NoWheel, []string{"other systems", "3.11.7"}},
		{"a newer Python", "ERROR: Ignored the following versions that require a different python version: 1.0 Requires-Python >=3.99\nERROR: Could not find a version that satisfies the requirement one (from versions: none)\nERROR: No matching distribution found for one\n",
			[]packages.File{wheel("1.0", ">=3.99")}, "", Conflict, []string{">=3.99", "3.11.7"}},
		{"a conflict", "ERROR: Cannot install one==1.0 and two because these package versions have conflicting dependencies.\n\nThe conflict is caused by:\n    one 1.0 depends on three<2\n    two 1.0 depends on three>=2\n\nTo fix this you could try to:\n1. loosen\n\nERROR: ResolutionImpossible: for help visit\n",
			nil, "==1.0", Conflict, []string{"one 1.0 depends on three<2", "two 1.0 depends on three>=2"}},
		{"a build", "  error: subprocess-exited-with-error\n  × python setup.py egg_info did not run successfully.\n  │ exit code: 1\n  ╰─> [2 lines of output]\n      Traceback\n      RuntimeError: no compiler\n      [end of output]\n  note: This error originates from a subprocess\n",
			nil, "", Failed, []string{"RuntimeError: no compiler"}},
		{"a hash", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n", nil, "", Failed, []string{"hash differs"}},
		{"a silent index", "WARNING: Retrying (Retry(total=0)) after connection broken by 'ReadTimeoutError(\"HTTPConnectionPool: Read timed out.\")'\nERROR: x\n", nil, "", TimedOut, []string{"in time"}},
		{"an index that is down", "ERROR: HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: /one/\n", nil, "", Failed, []string{"could not be read"}},
		{"words that nobody has foreseen", "something\nERROR: A new kind of failure\n", nil, "", Failed, []string{"A new kind of failure"}},
		{"a traceback of pip's own", "ERROR: Exception:\nTraceback\n  File x\nAssertionError: bug\n", nil, "", Failed, []string{"AssertionError: bug"}},
		{"nothing at all", "", nil, "", Failed, []string{"could not resolve one"}},
	} {
		req := Request{Requirement: policy.Requirement{Name: "one", Specifier: c.specifier}}
		err := pipFailure(req, packages.Page{Found: true, Files: c.files}, "3.11.7", c.log)
		refused, ok := errors.AsType[*refusal](err)
		if !ok || refused.status != c.status {
			t.Errorf("%s: got %v", c.name, err)
			continue
		}
		for _, word := range c.words {
			if !strings.Contains(refused.message, word) {
				t.Errorf("%s: %q lacks %q", c.name, refused.message, word)
			}
		}
		if strings.Contains(refused.message, "\n") || strings.Contains(refused.message, "  ") {
			t.Errorf("%s: %q", c.name, refused.message)
		}
	}
}

func TestDirectReferenceOfADependency(t *testing.T) {
	t.Parallel()
	const log = "Collecting one\n  Downloading http://127.0.0.1:1/files/one-1.0-py3-none-any.whl.metadata (83 bytes)\n" +
		"Collecting two@ https://files.example:8443/two-1.0-py3-none-any.whl (from one)\nERROR: x\n"
	for host, want := range map[string]string{"files.example:8443": "two", "files.example": "two", "other.example": "", "127.0.0.1:1": ""} {
		if got := directReference(log, []string{host}); got != want {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
	}
}
