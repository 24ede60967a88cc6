package pool

import (
	"errors"
	"slices"
	"testing"
)

func TestEveryPairOfStatesIsAllowedOrRefused(t *testing.T) {
	t.Parallel()
	allowed := map[State][]State{
		StateBooting:  {StateIdle, StateDraining, StateDead},
		StateForking:  {StateLeased, StateDraining, StateDead},
		StateIdle:     {StateLeased, StateDraining, StateDead},
		StateLeased:   {StateDraining, StateDead},
		StateDraining: {StateDead},
	}
	for _, from := range States {
		for _, to := range States {
			got, err := transition(from, to)
			if slices.Contains(allowed[from], to) {
				if err != nil || got != to {
					t.Errorf("%s to %s: got %s, %v", from, to, got, err)
				}
				continue
			}
			var refused *transitionError
			if !errors.As(err, &refused) || refused.From != from || refused.To != to || got != from {
				t.Errorf("%s to %s: got %s, %v, want it refused", from, to, got, err)
			}
		}
	}
}
