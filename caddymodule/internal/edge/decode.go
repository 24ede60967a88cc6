package edge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds the nesting of a body. No field of ours nests at all.
const maxDepth = 100

// Decode reads one JSON document strictly: no duplicate names, no invalid UTF-8, no half surrogates, nothing behind the
// document. Names that v does not know are ignored. Its errors are sentences for the caller.
//
// Into an *any it decodes objects one level deep, which is all that validation looks at, so that what clients send
// beyond our fields costs nothing.
func Decode(data []byte, v any) error {
	if deeperThan(data, maxDepth) {
		return fmt.Errorf("the body is not acceptable JSON: it nests deeper than %d levels", maxDepth)
	}
	var err error
	if target, ok := v.(*any); ok {
		*target, err = decodeShallow(data)
	} else {
		err = json.Unmarshal(data, v, takeNumbers)
	}
	return syntaxSentence(err)
}

func decodeShallow(data []byte) (any, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data))
	if dec.PeekKind() != jsontext.KindBeginObject {
		value, err := decodeValue(dec)
		if err == nil {
			err = expectEnd(dec)
		}
		return value, err
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	object := map[string]any{}
	for dec.PeekKind() != jsontext.KindEndObject {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String()
		value, err := decodeValue(dec)
		if err != nil {
			return nil, err
		}
		if isFieldName(key) {
			object[key] = asField(key, value)
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	return object, expectEnd(dec)
}

// isFieldName reports whether key can be a field of ours. huma takes Code for code, the decoder of its values does not,
// so huma must not see what differs in case.
func isFieldName(key string) bool {
	return !strings.ContainsFunc(key, func(r rune) bool { return r >= utf8.RuneSelf || unicode.IsUpper(r) })
}

// decodeValue reads one value; an object or array stands for itself without its content.
func decodeValue(dec *jsontext.Decoder) (any, error) {
	raw, err := dec.ReadValue()
	if err != nil {
		return nil, err
	}
	switch raw.Kind() {
	case jsontext.KindString:
		text, err := jsontext.AppendUnquote(nil, raw)
		return string(text), err
	case jsontext.KindNumber:
		number, _ := parseNumber(string(raw)) // the decoder has checked it
		return number, nil
	case jsontext.KindTrue:
		return true, nil
	case jsontext.KindFalse:
		return false, nil
	case jsontext.KindBeginObject:
		return map[string]any{}, nil
	case jsontext.KindBeginArray:
		return []any{}, nil
	default:
		return nil, nil
	}
}

func expectEnd(dec *jsontext.Decoder) error {
	switch _, err := dec.ReadToken(); {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return errors.New("something follows the end of the document")
	default:
		return err
	}
}

// deeperThan reports whether data nests more than limit levels. It need not be exact about what is no JSON at all.
func deeperThan(data []byte, limit int) bool {
	if bytes.Count(data, []byte("[")) <= limit && bytes.Count(data, []byte("{")) <= limit {
		return false // the common case, at the speed of memory
	}
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > limit {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// syntaxSentence says what is wrong with a document, and where.
func syntaxSentence(err error) error {
	if err == nil {
		return nil
	}
	const prefix = "the body is not valid JSON: "
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return errors.New(prefix + "it ends before the document is complete")
	case errors.Is(err, jsontext.ErrDuplicateName):
		name := ""
		if ok {
			name = " " + strconv.Quote(syntax.JSONPointer.LastToken())
		}
		return errors.New(prefix + "the name" + name + " occurs twice in one object")
	case !ok:
		return errors.New(prefix + err.Error())
	}
	reason := strings.TrimPrefix(syntax.Err.Error(), "jsontext: ")
	if strings.Contains(reason, "surrogate") {
		reason = `a string holds half of a surrogate pair (\ud800 to \udfff), which is no character`
	}
	return fmt.Errorf("%s%s, at byte %d", prefix, reason, syntax.ByteOffset)
}

// Encode writes v as one JSON document without escaping what only HTML would need.
func Encode(v any) ([]byte, error) {
	return json.Marshal(v, jsontext.AllowInvalidUTF8(true))
}

// EncodeTo is encode into a writer.
func EncodeTo(w io.Writer, v any) error {
	return json.MarshalWrite(w, v, jsontext.AllowInvalidUTF8(true))
}
