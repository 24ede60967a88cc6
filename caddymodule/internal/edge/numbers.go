package edge

import (
	"errors"
	"strconv"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Models and forms send numbers as strings. A string that holds a number, as JSON writes one, is taken for it where a field
// takes a number, over every surface; what else comes is refused in words.

// numberFields are the fields that take a number. A test holds them to the types that are decoded into.
var numberFields = map[string]bool{"timeout": true}

// TakesNumber reports whether a field takes a number.
func TakesNumber(field string) bool { return numberFields[field] }

// maxNumber is the longest text that is read as a number, in bytes.
const maxNumber = 64

// numberIn returns the number that a string holds.
func numberIn(text string) (float64, bool) {
	text = strings.Trim(text, " \t\r\n")
	if text == "" || len(text) > maxNumber {
		return 0, false
	}
	if raw := jsontext.Value(text); raw.Kind() != jsontext.KindNumber || !raw.IsValid() {
		return 0, false
	}
	return parseNumber(text)
}

// parseNumber reads a number of JSON's. One that is too large is infinite, which is over every maximum.
func parseNumber(text string) (float64, bool) {
	number, err := strconv.ParseFloat(text, 64)
	return number, err == nil || errors.Is(err, strconv.ErrRange)
}

// asField is a decoded value as the field of that name takes it.
func asField(name string, value any) any {
	if text, ok := value.(string); ok && numberFields[name] {
		if number, ok := numberIn(text); ok {
			return number
		}
	}
	return value
}

// takeNumbers decodes numbers as asField does. What holds none has been refused before.
var takeNumbers = json.WithUnmarshalers(json.UnmarshalFromFunc(func(dec *jsontext.Decoder, into *float64) error {
	if dec.PeekKind() != jsontext.KindString {
		return errors.ErrUnsupported // as usual
	}
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	number, ok := numberIn(token.String())
	if !ok {
		return errors.New("a string that holds no number")
	}
	*into = number
	return nil
}))
