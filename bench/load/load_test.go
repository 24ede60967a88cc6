package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A generator that accepts a wrong answer, or loses one, makes every figure worthless.

var printed = regexp.MustCompile(`^print\("([0-9a-f]{14})"\)$`)

// serve answers as a server under test would, with the nonce changed by reply.
func serve(t *testing.T, reply func(http.ResponseWriter, string)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct{ Code string }
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &request)
		}
		match := printed.FindStringSubmatch(request.Code)
		if err != nil || match == nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		reply(w, match[1])
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func answer(stdout string) []byte {
	encoded, _ := json.Marshal(map[string]any{"stdout": stdout, "exit_code": 0})
	return encoded
}

func TestRun(t *testing.T) {
	const (
		allRight = iota
		allWrong
		allErrors
	)
	for name, test := range map[string]struct {
		reply func(http.ResponseWriter, string)
		want  int
	}{
		"right": {func(w http.ResponseWriter, n string) { _, _ = w.Write(answer(n + "\n")) }, allRight},
		"chunked": {func(w http.ResponseWriter, n string) {
			body := answer(n + "\n")
			_, _ = w.Write(body[:9])
			w.(http.Flusher).Flush()
			_, _ = w.Write(body[9:])
		}, allRight},
		"of another request": {func(w http.ResponseWriter, n string) { _, _ = w.Write(answer("00000000000000\n")) }, allWrong},
		"cut short":          {func(w http.ResponseWriter, n string) { _, _ = w.Write(answer(n)) }, allWrong},
		"not JSON":           {func(w http.ResponseWriter, n string) { _, _ = w.Write([]byte(n)) }, allWrong},
		"no exit code":       {func(w http.ResponseWriter, n string) { _, _ = w.Write([]byte(`{"stdout":"` + n + `\n"}`)) }, allWrong},
		"refused":            {func(w http.ResponseWriter, n string) { http.Error(w, "full", http.StatusServiceUnavailable) }, allErrors},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := run(serve(t, test.reply), `print("NONCE")`, 3, 0, 150*time.Millisecond, 5*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if (got.Runs > 0) != (test.want == allRight) || (got.Wrong > 0) != (test.want == allWrong) || (got.Errors > 0) != (test.want == allErrors) {
				t.Errorf("report %+v", got)
			}
		})
	}
}

func TestCodeWithoutNonce(t *testing.T) {
	if _, err := run("127.0.0.1:1", "print(1)", 1, 0, time.Millisecond, 0); err == nil {
		t.Error("code that cannot be verified was accepted")
	}
}
