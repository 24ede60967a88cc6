package policy

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func FuzzParseRequirement(f *testing.F) {
	for _, pkg := range []string{
		"requests", "requests[socks, x]", "requests==2.31.0", "a[]", "-r x", "git+https://x", "a @ b", "a;b", "../a", "r\u0435quests",
		"requests>=1.0.post1,~=2.0rc1", "a.zip", "a b",
	} {
		for _, version := range []string{"", "latest", "2.31.0", ">=2,<3", "===x", "==1.*", "^1", "1!2.0rc1.post2.dev3+local_1"} {
			f.Add(pkg, version)
		}
	}
	f.Fuzz(func(t *testing.T, pkg, version string) {
		requirement, err := ParseRequirement(pkg, version)
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Message == "" || invalid.Field != "package" && invalid.Field != "version" {
				t.Fatalf("%#v", err)
			}
			return
		}
		if !isName(requirement.Name) || Canonical(requirement.Name) != requirement.Name {
			t.Fatalf("the name %q is not canonical", requirement.Name)
		}
		text := requirement.String()
		for _, c := range []byte(text) {
			if c <= ' ' || c > '~' || c == ';' || c == '/' || c == '\\' || c == '@' {
				t.Fatalf("%q has %q", text, c)
			}
		}
		again, err := ParseRequirement(text, "")
		if err != nil || again.String() != text || again.Name != requirement.Name || again.Specifier != requirement.Specifier || !slices.Equal(again.Extras, requirement.Extras) {
			t.Fatalf("%q is read back as %+v, %v", text, again, err)
		}
		split, err := ParseRequirement(requirement.Name, requirement.Specifier)
		if err != nil || split.Specifier != requirement.Specifier {
			t.Fatalf("%q of %q is read back as %+v, %v", requirement.Specifier, requirement.Name, split, err)
		}
	})
}

func FuzzCheck(f *testing.F) {
	for _, name := range []string{"requests", "reqeusts", "os", "pip", "cv2", "python3-dateutil", "beautifuklsoup", "a", "0-0", "pip-v2", "py-", "rnvv"} {
		f.Add(name, "idna", "1.0", int64(1000), byte(0))
	}
	f.Fuzz(func(t *testing.T, pkg, dependency, version string, bytes int64, bits byte) {
		requirement, err := ParseRequirement(pkg, "")
		if err != nil {
			return
		}
		config := Config{SdistAllowed: bits&1 != 0, MaxDownloadBytes: 1 << 20, MaxInstalledBytes: 1 << 30}
		if bits&2 != 0 {
			config.Allow = []string{"requests", requirement.Name}
		}
		if bits&4 != 0 {
			config.Trust = []string{requirement.Name}
		}
		if bits&8 != 0 {
			config.Block = []string{requirement.Name}
		}
		p, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		d := p.Check(requirement)
		checkDecision(t, d)
		if d.Package != requirement.Name {
			t.Fatalf("%q: the decision is about %q", requirement.Name, d.Package)
		}
		if bits&8 != 0 && d.Allowed {
			t.Fatalf("%q is on the blocklist, and allowed", requirement.Name)
		}
		if bits&6 != 0 && d.Rule == RuleTyposquat {
			t.Fatalf("%q is vouched for, and taken for a squat", requirement.Name)
		}
		if _, found := popular()[d.Resembles]; d.Resembles != "" && !found && !provided()[d.Resembles] {
			t.Fatalf("%q resembles %q, which is not popular", requirement.Name, d.Resembles)
		}
		set := []Resolved{
			{Name: requirement.Name, Version: version, DownloadBytes: bytes, Hashed: bits&16 == 0, Wheel: bits&32 == 0, Yanked: bits&64 != 0},
			{Name: dependency, Version: version, DownloadBytes: bytes, Hashed: true, Wheel: true},
		}
		resolved := p.CheckResolved(requirement, set)
		if resolved.Allowed && !d.Allowed {
			t.Fatalf("%+v allows what %+v refuses", resolved, d)
		}
		if resolved.Allowed != (resolved.Rule == RuleNone) || resolved.Allowed != (resolved.Message == "") {
			t.Fatalf("%+v", resolved)
		}
		checkDecision(t, p.CheckInstalledSize(bytes))
		if Guess(pkg) == "" && Provider(pkg) != "" {
			t.Fatalf("Guess(%q) does not know what Provider does", pkg)
		}
	})
}

// FuzzRate compares a Rate with a log of all admissions.
func FuzzRate(f *testing.F) {
	f.Add([]byte{0, 0, 0, 10, 200, 0, 3, 4, 5}, byte(2), byte(4))
	f.Fuzz(func(t *testing.T, steps []byte, limit, places byte) {
		steps = steps[:min(len(steps), 500)] // each step searches the whole log
		const window = 100 * time.Second
		bound := 1 + int(limit%5)
		var c clock
		rate := NewRate(bound, window, 1+int(places%4), c.now)
		admitted := map[string][]time.Duration{}
		for _, step := range steps {
			c.advance(time.Duration(step>>3) * time.Second)
			at := time.Duration(c.at.Load())
			client := string('a' + rune(step&7))
			log := admitted[client]
			within := 0
			for _, earlier := range log {
				if at-earlier < window {
					within++
				}
			}
			_, placed := rate.admissions.clients[client]
			ok, retryAfter := rate.Allow(client)
			switch {
			case ok && retryAfter != 0, !ok && (retryAfter <= 0 || retryAfter > window):
				t.Fatalf("%v, %v", ok, retryAfter)
			case ok && within >= 2*bound: // bound in its own place, and up to bound in the shared record before it got the place
				t.Fatalf("%s is admitted %d times within the window", client, within+1)
			case placed && !ok && within < bound:
				t.Fatalf("%s is refused after %d of %d", client, within, bound)
			}
			if ok {
				admitted[client] = append(log, at)
			}
			if len(rate.admissions.clients) > 1+int(places%4) || len(rate.admissions.clients) != rate.admissions.byLast.Len() {
				t.Fatalf("%d clients", len(rate.admissions.clients))
			}
		}
	})
}
