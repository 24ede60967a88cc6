package policy

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
)

// How far down the list of popular packages each comparison reaches. What many people type is worth imitating; further
// down, two names that are close to each other are more often two honest packages.
const (
	shapeTargets = 6000 // the same letters, with other separators or look-alikes
	slipTargets  = 3000 // one slip of the finger
	affixTargets = 800  // "python-", "-py", a version digit and the like
	gluedTargets = 300  // the same without a separator: "pyflask"
	twiceTargets = 500  // two slips in a long name
)

// squats finds the popular name that another name imitates. It looks for what TypoGard looks for (Taylor, Vaidya, Davidson,
// De Carli, Rastogi: "Defending against package typosquatting", NSS 2020): repeated, omitted and swapped characters, swapped
// words, substitutions by keyboard neighbours and look-alikes, version suffixes; and for added affixes. Candidates for slips
// come from a table of the targets with characters deleted, as in SymSpell (Garbe, 2012), so a check costs a few look-ups
// and no scan. Read-only once built.
type squats struct {
	ranks map[string]int    // the popular names, none of which imitates another
	names []string          // the same, by rank
	forms []form            // the spellings that a target goes by
	exact map[string]int32  // the text of each form to its index
	shape map[string]string // shapes to names
	words map[string]string // sorted words to names
	slips []deletion        // sorted by key
}

// form is one spelling of a target, without separators: its name, or that without a version digit or affix of its own.
type form struct {
	text  string
	rank  int
	whole bool // the name itself
}

// deletion points from a form with characters deleted to the form.
type deletion struct {
	key  uint64
	form int32
}

var deletionSeed = maphash.MakeSeed()

// popularSquats is built at the first check.
var popularSquats = sync.OnceValue(func() *squats { return newSquats(popular()) })

// newSquats indexes names by their ranks, from 0.
func newSquats(ranks map[string]int) *squats {
	s := &squats{
		ranks: ranks,
		names: make([]string, len(ranks)),
		exact: map[string]int32{},
		shape: map[string]string{},
		words: map[string]string{},
	}
	for name, rank := range ranks {
		s.names[rank] = name
	}
	for rank, name := range s.names[:min(len(s.names), shapeTargets)] {
		text := compact(name)
		if len(text) < 4 {
			continue // too short to tell an imitation from an abbreviation
		}
		putFirst(s.shape, shapeOf(name), name)
		if strings.Contains(name, "-") {
			putFirst(s.words, sortWords(name), name)
		}
		if rank < slipTargets {
			s.addForm(form{text: text, rank: rank, whole: true})
		}
		if rank < affixTargets {
			for _, bare := range slices.Concat(withoutVersion(name), withoutAffix(name)) {
				s.addForm(form{text: compact(bare), rank: rank})
			}
		}
	}
	slices.SortFunc(s.slips, func(a, b deletion) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.form, b.form))
	})
	return s
}

func (s *squats) addForm(f form) {
	if _, found := s.exact[f.text]; found || len(f.text) < 4 {
		return
	}
	index := int32(len(s.forms))
	s.forms = append(s.forms, f)
	s.exact[f.text] = index
	for _, key := range deletions(f.text, f.depth()) {
		s.slips = append(s.slips, deletion{key, index})
	}
}

// depth is how many slips in a form are looked for.
func (f form) depth() int {
	if f.rank < twiceTargets && len(f.text) >= 10 {
		return 2
	}
	return 1
}

func putFirst(table map[string]string, key, value string) {
	if _, found := table[key]; !found {
		table[key] = value
	}
}

// find returns the popular name that a canonical name resembles, or "". A popular name resembles none.
func (s *squats) find(name string) string {
	if _, found := s.ranks[name]; found || len(name) < 3 {
		return ""
	}
	if target, found := s.shape[shapeOf(name)]; found && len(compact(target)) >= 5 {
		return target
	}
	if target, found := s.words[sortWords(name)]; found {
		return target
	}
	bases := slices.Concat(withoutVersion(name), withoutAffix(name))
	for _, base := range append(bases, name) {
		if target := s.lookUp(base, affixTargets, 4); target != "" {
			return target
		}
	}
	for _, base := range withoutGluedAffix(name) {
		if target := s.lookUp(base, gluedTargets, 5); target != "" {
			return target
		}
	}
	if target := s.slipped(name, slipTargets, 5); target != "" {
		return target
	}
	for _, base := range bases {
		if target := s.slipped(base, affixTargets, 7); target != "" {
			return target
		}
	}
	return ""
}

// lookUp finds the target of a form that is spelled like a name.
func (s *squats) lookUp(name string, targets, shortest int) string {
	index, found := s.exact[compact(name)]
	if !found {
		return ""
	}
	if f := s.forms[index]; f.rank < targets && len(f.text) >= shortest {
		return s.names[f.rank]
	}
	return ""
}

// slipped finds the target that the fewest slips turn into a name, the most popular of several.
func (s *squats) slipped(name string, targets, shortest int) string {
	text := compact(name)
	best, fewest := targets, 3
	for _, key := range deletions(text, 2) {
		i, _ := slices.BinarySearchFunc(s.slips, key, func(d deletion, key uint64) int { return cmp.Compare(d.key, key) })
		for ; i < len(s.slips) && s.slips[i].key == key; i++ {
			f := s.forms[s.slips[i].form]
			if f.rank >= targets || len(f.text) < shortest {
				continue
			}
			target := f.text
			if f.whole {
				target = s.names[f.rank]
			}
			slips := plausible(name, target, f)
			if slips > 0 && (slips < fewest || slips == fewest && f.rank < best) {
				best, fewest = f.rank, slips
			}
		}
	}
	if fewest == 3 {
		return ""
	}
	return s.names[best]
}

// plausible returns how many slips tell a name from a target, 1 or 2, or 0 when it takes more or the difference is rather one
// of meaning. The thresholds are such that few of the packages that are on the index, but not on the list, are taken for
// squats: typosquat_test.go has the numbers.
func plausible(name, target string, f form) int {
	text := compact(name)
	length := len(f.text)
	if word, found := oneWordDiffers(name, target); found {
		if length = len(word); length < 4 {
			return 0 // mypy-boto3-rds and mypy-boto3-ds: the short word is what the name is about
		}
		length = max(length, 6)
	}
	kind, wrong, right := slipOf(text, f.text)
	if kind == several {
		if f.depth() == 2 && length >= 8 && text[0] == f.text[0] && distanceAtMost2(text, f.text) {
			return 2
		}
		return 0
	}
	digit := isDigit(wrong) || isDigit(right)
	var likely bool
	switch {
	case kind == repeated, kind == swapped:
		likely = length >= 5
	case kind == dropped && f.rank < twiceTargets:
		likely = true
	case kind == dropped, kind == added:
		likely = length >= 6 && (!digit || f.rank < affixTargets)
	case digit: // another version, unless a finger went astray from a letter
		likely = length >= 6 && isDigit(wrong) != isDigit(right) && isNeighbour(wrong, right)
	case isNeighbour(wrong, right), isVowel(wrong) && isVowel(right):
		likely = length >= 6
	default:
		likely = length >= 8
	}
	if !likely {
		return 0
	}
	return 1
}

// slip is what went wrong in typing a name.
type slip int

const (
	several  slip = iota // or none
	repeated             // requuests
	dropped              // requets
	added                // requestss is repeated; requesfts
	swapped              // reqeusts
	replaced             // requezts
)

// slipOf names the one slip that turns a target into a name, with the characters that are wrong and right, 0 for none.
func slipOf(name, target string) (kind slip, wrong, right byte) {
	start := 0
	for start < len(name) && start < len(target) && name[start] == target[start] {
		start++
	}
	end := 0
	for end < len(name)-start && end < len(target)-start && name[len(name)-1-end] == target[len(target)-1-end] {
		end++
	}
	have, want := name[start:len(name)-end], target[start:len(target)-end]
	switch {
	case len(have) == 0 && len(want) == 1:
		return dropped, 0, want[0]
	case len(have) == 1 && len(want) == 0:
		if start > 0 && name[start-1] == have[0] { // the equal prefix takes the first of two
			return repeated, have[0], 0
		}
		return added, have[0], 0
	case len(have) == 2 && len(want) == 2 && have[0] == want[1] && have[1] == want[0]:
		return swapped, have[0], want[0]
	case len(have) == 1 && len(want) == 1:
		return replaced, have[0], want[0]
	}
	return several, 0, 0
}

// distanceAtMost2 reports whether two slips of any kind suffice (optimal string alignment), for texts of similar length.
func distanceAtMost2(a, b string) bool {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := range len(a) {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		rows = [3][]int{last, row, before}
	}
	return rows[1][len(b)] <= 2
}

// deletions returns the keys of a text and of all that is left of it with up to depth characters deleted. Long names have
// one deleted at most: two would be thousands.
func deletions(text string, depth int) []uint64 {
	keys := []uint64{maphash.String(deletionSeed, text)}
	if depth == 0 {
		return keys
	}
	if len(text) > 24 {
		depth = 1
	}
	for i := range len(text) {
		if i == 0 || text[i] != text[i-1] {
			keys = append(keys, deletions(text[:i]+text[i+1:], depth-1)...)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
