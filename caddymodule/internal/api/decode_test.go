package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge/edgetest"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

func TestBadInput(t *testing.T) {
	t.Parallel()
	runner := &fakeRunner{}
	site := newSite(t, runner, pool.Stat{})
	const timeoutMessage = "must be a number of seconds, greater than 0 and at most 120 seconds"
	for _, c := range []struct {
		name, body string
		status     int
		location   string // of the error, for 422
		want       string // in the message, or in the detail
	}{
		{"empty body", "", 400, "", "the request body is empty"},
		{"blank body", " \n", 400, "", "ends before the document is complete"},
		{"no JSON", "print(1)", 400, "", "not valid JSON"},
		{"truncated object", `{"code": "print(1)"`, 400, "", "ends before the document is complete"},
		{"truncated string", `{"code": "print(1`, 400, "", "ends before the document is complete"},
		{"two documents", `{"code": "1"} {"code": "2"}`, 400, "", "something follows the end"},
		{"text behind the document", `{"code": "1"}x`, 400, "", "not valid JSON"},
		{"a comma too many", `{"code": "1",}`, 400, "", "not valid JSON"},
		{"single quotes", `{'code': '1'}`, 400, "", "not valid JSON"},
		{"NaN", `{"code": "1", "timeout": NaN}`, 400, "", "not valid JSON"},
		{"Infinity", `{"code": "1", "timeout": Infinity}`, 400, "", "not valid JSON"},
		{"a leading zero", `{"code": "1", "timeout": 010}`, 400, "", "not valid JSON"},
		{"10,000 arrays deep", `{"code": "1", "x": ` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`, 400, "", "nests deeper than 100"},
		{"10,000 objects deep", strings.Repeat(`{"a":`, 10000) + "1" + strings.Repeat("}", 10000), 400, "", "nests deeper than 100"},
		{"10,000 deep and truncated", strings.Repeat("[", 10000), 400, "", "nests deeper than 100"},
		{"a name twice", `{"code": "1", "code": "2"}`, 400, "", `the name "code" occurs twice`},
		{"a lone high surrogate", `{"code": "print('\ud800')"}`, 400, "", "half of a surrogate pair"},
		{"a lone low surrogate", `{"code": "print('\udc00')"}`, 400, "", "half of a surrogate pair"},
		{"surrogates in the wrong order", `{"code": "1", "stdin": "\udc00\ud800"}`, 400, "", "half of a surrogate pair"},
		{"a lone surrogate in a field of nobody", `{"code": "1", "x": "\ud800"}`, 400, "", "half of a surrogate pair"},
		{"invalid UTF-8", "{\"code\": \"\xff\"}", 400, "", "invalid UTF-8"},
		{"a control character", "{\"code\": \"a\nb\"}", 400, "", "not valid JSON"},
		{"null", `null`, 422, "body", "must be a JSON object"},
		{"an array", `["print(1)"]`, 422, "body", "must be a JSON object"},
		{"a string", `"print(1)"`, 422, "body", "must be a JSON object"},
		{"no code", `{}`, 422, "body.code", "is missing"},
		{"code in another case", `{"Code": "1"}`, 422, "body.code", "is missing"},
		{"code null", `{"code": null}`, 422, "body.code", "; it came as null"},
		{"code a number", `{"code": 1}`, 422, "body.code", "; it came as a number"},
		{"code an object", `{"code": {"a": 1}}`, 422, "body.code", "; it came as an object"},
		{"code an array of lines", `{"code": ["x = 1", "print(x)"]}`, 422, "body.code", "; it came as an array: join its lines"},
		{"code too long", `{"code": "` + strings.Repeat("x", operation.MaxCodeBytes+1) + `"}`, 422, "body.code", "at most 1 MiB"},
		{"code too long in bytes only", `{"code": "` + strings.Repeat("é", operation.MaxCodeBytes/2+1) + `"}`, 422, "body.code", "at most 1 MiB"},
		{"timeout 0", `{"code": "1", "timeout": 0}`, 422, "body.timeout", timeoutMessage},
		{"timeout -1", `{"code": "1", "timeout": -1}`, 422, "body.timeout", timeoutMessage},
		{"timeout 121", `{"code": "1", "timeout": 121}`, 422, "body.timeout", timeoutMessage},
		{"timeout over by a hair", `{"code": "1", "timeout": 120.0001}`, 422, "body.timeout", timeoutMessage},
		{"timeout beyond float64", `{"code": "1", "timeout": 1e999}`, 422, "body.timeout", timeoutMessage},
		{"timeout a string", `{"code": "1", "timeout": "x"}`, 422, "body.timeout", timeoutMessage + "; it came as a string that holds no number"},
		{"timeout an empty string", `{"code": "1", "timeout": ""}`, 422, "body.timeout", "a string that holds no number"},
		{"timeout with a unit", `{"code": "1", "timeout": "30s"}`, 422, "body.timeout", "a string that holds no number"},
		{"timeout too large in a string", `{"code": "1", "timeout": "121"}`, 422, "body.timeout", timeoutMessage},
		{"timeout beyond float64 in a string", `{"code": "1", "timeout": "1e999"}`, 422, "body.timeout", timeoutMessage},
		{"timeout NaN in a string", `{"code": "1", "timeout": "NaN"}`, 422, "body.timeout", "a string that holds no number"},
		{"timeout hexadecimal", `{"code": "1", "timeout": "0x10"}`, 422, "body.timeout", "a string that holds no number"},
		{"timeout two numbers", `{"code": "1", "timeout": "1 2"}`, 422, "body.timeout", "a string that holds no number"},
		{"timeout of many digits", `{"code": "1", "timeout": "` + strings.Repeat("1", 1000) + `"}`, 422, "body.timeout", "a string that holds no number"},
		{"timeout true", `{"code": "1", "timeout": true}`, 422, "body.timeout", timeoutMessage + "; it came as true or false"},
		{"timeout an array", `{"code": "1", "timeout": [1]}`, 422, "body.timeout", timeoutMessage + "; it came as an array"},
		{"stdin a number", `{"code": "1", "stdin": 5}`, 422, "body.stdin", "must be a string; it came as a number"},
		{"body too large", `{"code": "1", "stdin": "` + strings.Repeat("x", testMaxBody) + `"}`, 413, "", "larger than 3.0 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, body, header := edgetest.Send(t, "POST", site.URL+"/execute", strings.NewReader(c.body), nil)
			if status != c.status {
				t.Fatalf("got %d %s", status, body)
			}
			p := edgetest.CheckProblem(t, status, body, header)
			if len(body) > 1000 {
				t.Errorf("the answer echoes the request: %d bytes", len(body))
			}
			if c.location == "" {
				if len(p.Errors) != 0 || !strings.Contains(p.Detail, c.want) {
					t.Errorf("got %s, want %q in the detail", body, c.want)
				}
				return
			}
			if len(p.Errors) != 1 || p.Errors[0].Location != c.location || !strings.Contains(p.Errors[0].Message, c.want) {
				t.Errorf("got %s, want %s %q", body, c.location, c.want)
			}
		})
	}
	t.Cleanup(func() {
		if n := runner.runs.Load(); n != 0 {
			t.Errorf("%d of the requests reached the pool", n)
		}
	})
}

func TestEveryFaultIsNamed(t *testing.T) {
	t.Parallel()
	site := newSite(t, &fakeRunner{}, pool.Stat{})
	_, body, _ := edgetest.Send(t, "POST", site.URL+"/execute", strings.NewReader(`{"timeout": "x", "stdin": 5}`), nil)
	for _, location := range []string{"body.code", "body.timeout", "body.stdin"} {
		if strings.Count(body, `"location":"`+location+`"`) != 1 {
			t.Errorf("got %s, want %s once", body, location)
		}
	}
}

func TestGoodInput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		header     map[string]string
		want       pool.Request
	}{
		{"the least", `{"code":"1"}`, nil, pool.Request{Code: "1", Timeout: 30 * time.Second}},
		{"as curl -d sends it", `{"code":"1"}`, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, pool.Request{Code: "1", Timeout: 30 * time.Second}},
		{"no type we know", `{"code":"1"}`, map[string]string{"Content-Type": "a+b;c", "Accept": "image/png"}, pool.Request{Code: "1", Timeout: 30 * time.Second}},
		{"null is unset", `{"code":"1","timeout":null,"stdin":null}`, nil, pool.Request{Code: "1", Timeout: 30 * time.Second}},
		{"everything", `{"code":"1","timeout":0.25,"stdin":"in"}`, nil, pool.Request{Code: "1", Timeout: 250 * time.Millisecond, Stdin: "in"}},
		{"a number in a string", `{"code":"1","timeout":"30"}`, nil, pool.Request{Code: "1", Timeout: 30 * time.Second}},
		{"with blanks around it", `{"code":"1","timeout":" 10\n"}`, nil, pool.Request{Code: "1", Timeout: 10 * time.Second}},
		{"with an exponent", `{"code":"1","timeout":"1e1"}`, nil, pool.Request{Code: "1", Timeout: 10 * time.Second}},
		{"with escapes", `{"code":"1","timeout":"\u0030.5"}`, nil, pool.Request{Code: "1", Timeout: 500 * time.Millisecond}},
		{"code and stdin that look like numbers", `{"code":"30","stdin":"30"}`, nil, pool.Request{Code: "30", Stdin: "30", Timeout: 30 * time.Second}},
		{"the longest", `{"code":"1","timeout":120}`, nil, pool.Request{Code: "1", Timeout: 120 * time.Second}},
		{"shorter than a nanosecond", `{"code":"1","timeout":1e-30}`, nil, pool.Request{Code: "1", Timeout: 1}},
		{"fields of nobody", `{"code":"1","model":"x","TIMEOUT":-3,"x":{"y":[1,{"z":null}]},"huge":1e999}`, nil, pool.Request{Code: "1", Timeout: 30 * time.Second}},
		{"empty code", `{"code":""}`, nil, pool.Request{Timeout: 30 * time.Second}},
		{"brackets in a string", `{"code":"` + strings.Repeat("[{", 200) + `"}`, nil, pool.Request{Code: strings.Repeat("[{", 200), Timeout: 30 * time.Second}},
		{"characters of all kinds", `{"code":"é\ud83d\ude00\u0000\u2028"}`, nil, pool.Request{Code: "é😀\x00\u2028", Timeout: 30 * time.Second}},
		{"the most code", `{"code":"` + strings.Repeat("x", operation.MaxCodeBytes) + `"}`, nil, pool.Request{Code: strings.Repeat("x", operation.MaxCodeBytes), Timeout: 30 * time.Second}},
		{"a body at the limit", `{"code":"1","x":"` + strings.Repeat("x", testMaxBody-19) + `"}`, nil, pool.Request{Code: "1", Timeout: 30 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			runner := &fakeRunner{}
			site := newSite(t, runner, pool.Stat{})
			status, body, header := edgetest.Send(t, "POST", site.URL+"/execute", strings.NewReader(c.body), c.header)
			if status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			got := *runner.last.Load()
			if got.ID == "" {
				t.Error("the execution has no id")
			}
			got.ID = ""
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %.100q, want %.100q", fmt.Sprint(got), fmt.Sprint(c.want))
			}
			if header.Get("Content-Type") != "application/json" || header.Get("Link") != "" {
				t.Errorf("got %v", header)
			}
			want := fmt.Sprintf(`{"stdout":%q,"stderr":"","exit_code":0,"execution_time":0.0015,"success":true,"status":"ok",`+
				`"truncated":false,"usage":{"cpu_time":0,"peak_memory_bytes":0,"queue_time":0}}`, c.want.Stdin)
			if body != want {
				t.Errorf("got  %s\nwant %s", body, want)
			}
		})
	}
}

// A body that is shorter than announced is the client's fault, and no 500.
func TestBodyThatEndsEarly(t *testing.T) {
	t.Parallel()
	site := newSite(t, &fakeRunner{}, pool.Stat{})
	conn, err := net.Dial("tcp", site.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"code\""); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 400 {
		t.Errorf("got %d", resp.StatusCode)
	}
}
