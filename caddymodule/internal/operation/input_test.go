package operation

import (
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

// Fields that are decoded to numbers, and no others, may be sent as strings, too.
func TestNumbersAreTakenWhereAFieldIsOne(t *testing.T) {
	t.Parallel()
	for _, input := range []reflect.Type{reflect.TypeFor[ExecuteInput](), reflect.TypeFor[InstallInput]()} {
		for i := range input.NumField() {
			field := input.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			kind := field.Type
			if kind.Kind() == reflect.Pointer {
				kind = kind.Elem()
			}
			if name != "" && edge.TakesNumber(name) != (kind.Kind() == reflect.Float64) {
				t.Errorf("%s.%s: taken for a number: %v, decoded to %s", input, name, edge.TakesNumber(name), kind)
			}
		}
	}
}
