package policy

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
)

// How many of the most popular packages each comparison covers. Names that many people type are worth imitating; further down
// the list, two similar names more often belong to two honest packages.
const (
	shapeTargets = 6000 // the same letters, with other separators or look-alikes
	slipTargets  = 3000 // one slip of the finger
	affixTargets = 800  // "python-", "-py", a version digit and the like added
	gluedTargets = 300  // such an affix without a separator: "pyflask"
	twiceTargets = 500  // two slips in a long name
)

// squats finds the popular name, called the target, that another name imitates. It looks for what TypoGard looks for (Taylor,
// Vaidya, Davidson, De Carli, Rastogi: "Defending against package typosquatting", NSS 2020): repeated, omitted and swapped
// characters, swapped words, substitutions by keyboard neighbours and look-alikes, version suffixes; and also for added affixes.
// Candidates for slips come from a table of the targets with characters deleted, as in SymSpell (Garbe, 2012), so that a check
// costs a few look-ups and no scan. It is read-only once built.
type squats struct {
	ranks map[string]int    // popular names to ranks; find reports none of them as an imitation
	names []string          // popular names by rank
	forms []form            // the spellings of targets with which names are compared
	exact map[string]int32  // the text of each form to its index in forms
	shape map[string]string // shapeOf of each target to the target
	words map[string]string // sortWords of each target to the target
	slips []deletion        // sorted by key
}

// form is one spelling of a target, without separators: its name, or its name without an affix or version digit.
type form struct {
	text  string
	rank  int  // of the target
	whole bool // text is the whole name
}

// deletion maps the text of a form with characters deleted to the form.
type deletion struct {
	key  uint64 // hash of the text
	form int32  // index in forms
}

var deletionSeed = maphash.MakeSeed()

// popularSquats is built when it is first needed.
var popularSquats = sync.OnceValue(func() *squats { return newSquats(popular()) })

// newSquats builds the tables for names, whose ranks must be 0 to len(ranks)-1.
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

// depth returns how many slips in a form are looked for: two in long and very popular names, else one.
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

// lookUp returns the target that has name as a form, if its rank is below targets and the form has at least shortest characters.
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

// slipped returns the target that the fewest slips turn into name, the most popular of several. targets and shortest are as for
// lookUp.
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

// plausible returns how many slips, 1 or 2, turn target into name. It returns 0 when more are needed, or when the difference is
// more likely intended. The thresholds are chosen so that few real packages outside the list of popular ones are reported:
// TestFalseAlarms has the numbers.
func plausible(name, target string, f form) int {
	text := compact(name)
	length := len(f.text)
	if word, found := oneWordDiffers(name, target); found {
		if length = len(word); length < 4 {
			return 0 // as in mypy-boto3-rds and mypy-boto3-ds: the short word is what distinguishes the packages
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
	case digit: // a replaced digit is another version, unless the finger has hit a digit beside a letter
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

// slip is a kind of typing mistake.
type slip int

const (
	several  slip = iota // more than one slip, or none
	repeated             // requuests
	dropped              // requets
	added                // requesfts; but requestss is repeated
	swapped              // reqeusts
	replaced             // requezts
)

// slipOf returns the kind of the one slip that turns target into name, and the wrong character in name and the right one in
// target, each 0 when there is none.
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
		if start > 0 && name[start-1] == have[0] { // of two equal characters the first is part of the common prefix
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

// distanceAtMost2 reports whether at most two slips of any kind turn a into b (optimal string alignment distance).
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

// deletions returns the keys (hashes) of a text, and of all texts that it becomes when up to depth characters are deleted. In a
// text of more than 24 characters at most one is deleted, since two would make hundreds or thousands of keys.
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
