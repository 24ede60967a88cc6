package pool

import "fmt"

// State is where a worker stands in its life. A worker that has run user code never becomes idle again.
type State uint8

// The states of a worker, in the order of its life. It begins as one of the first two.
const (
	StateBooting  State = iota // being forked, to be parked
	StateForking               // being forked for a request that has it already; becomes leased after forkingTime, if the run lasts as long
	StateIdle                  // parked, waiting for a request
	StateLeased                // a request has it
	StateDraining              // asked to end, not yet reaped
	StateDead                  // reaped
)

// States lists every State.
var States = []State{StateBooting, StateForking, StateIdle, StateLeased, StateDraining, StateDead}

var stateNames = [...]string{"booting", "forking", "idle", "leased", "draining", "dead"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// legal holds, for each state, the states that may follow it.
var legal = [...][]State{
	StateBooting:  {StateIdle, StateDraining, StateDead},
	StateForking:  {StateLeased, StateDraining, StateDead},
	StateIdle:     {StateLeased, StateDraining, StateDead},
	StateLeased:   {StateDraining, StateDead},
	StateDraining: {StateDead},
	StateDead:     nil,
}

// transitionError reports a transition that the table of states does not have: a bug of ours.
type transitionError struct{ From, To State }

func (e *transitionError) Error() string {
	return fmt.Sprintf("bug: a worker may not go from %s to %s", e.From, e.To)
}

// transition returns to, or an error when to may not follow from.
func transition(from, to State) (State, error) {
	for _, next := range legal[from] {
		if next == to {
			return to, nil
		}
	}
	return from, &transitionError{From: from, To: to}
}

// Reason says why a worker ended: the label of its metric.
type Reason string

// The reasons for which a worker ends.
const (
	ReasonServed       Reason = "served"        // its code ran to its own end
	ReasonBootFailed   Reason = "boot_failed"   // it never became ready
	ReasonCrashed      Reason = "crashed"       // it ended while parked, or with its template
	ReasonTimeLimit    Reason = "time_limit"    // its code ran longer than its timeout
	ReasonMemoryLimit  Reason = "memory_limit"  // its code held more memory than allowed
	ReasonOutputLimit  Reason = "output_limit"  // its code wrote more output than Config.OutputKill
	ReasonScratchLimit Reason = "scratch_limit" // its code wrote more to its files than allowed
	ReasonCancelled    Reason = "cancelled"     // the caller went away
	ReasonGeneration   Reason = "generation"    // it was parked with a set of packages that is no longer current
	ReasonProtocol     Reason = "protocol"      // it sent a message that the protocol does not have
	ReasonShutdown     Reason = "shutdown"      // the pool closed
)

// The reasons why a worker ends that was never forked. Metrics do not count them.
const (
	reasonNotAsked Reason = "not_asked" // its lane was not asked to fork it, and is free for another
	reasonLaneLeft Reason = "lane_left" // its lane was asked to fork it, but ended itself before it read that
)

// wasForked says whether a worker that ended for a reason was a process.
func (r Reason) wasForked() bool { return r != reasonNotAsked && r != reasonLaneLeft }

// Reasons lists every Reason that is counted.
var Reasons = []Reason{ReasonServed, ReasonBootFailed, ReasonCrashed, ReasonTimeLimit, ReasonMemoryLimit,
	ReasonOutputLimit, ReasonScratchLimit, ReasonCancelled, ReasonGeneration, ReasonProtocol, ReasonShutdown}
