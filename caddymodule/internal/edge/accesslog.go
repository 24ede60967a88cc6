package edge

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// AccessLog writes the lines of MCP requests in Caddy's access log itself. Caddy's own would hold the id of the session, in
// the query of /mcp/message or in a header of /mcp, and who knows the id can run code in the session and read its answers.
// Caddy has encoded the request before any handler runs, so its line can be left out but not changed. Nil writes nothing.
type AccessLog struct {
	log    *zap.Logger
	userID func(context.Context) string
}

// NewAccessLog writes to logger, that of Caddy's HTTP app. userID names the authenticated user of a request, "" for none.
func NewAccessLog(logger *zap.Logger, userID func(context.Context) string) *AccessLog {
	return &AccessLog{logger.Named("log.access"), userID}
}

const (
	redacted      = "REDACTED" // the word that Caddy uses
	sessionHeader = "Mcp-Session-Id"
)

// TakeOver has Caddy leave its line out, and returns what writes ours when the request is over. An operator who has asked
// for credentials in the log gets Caddy's.
func (a *AccessLog) TakeOver(w http.ResponseWriter, r *http.Request) (finish func()) {
	s, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if a == nil || s == nil || s.Logs == nil || s.Logs.ShouldLogCredentials {
		return func() {}
	}
	recorder := outermostRecorder(w)
	if skip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.LogSkipVar).(bool); skip || recorder == nil {
		return func() {} // not logged anyway
	}
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	request, begin := loggable(r), time.Now()
	body := &countingBody{ReadCloser: r.Body}
	r.Body = body
	return func() {
		level := zapcore.InfoLevel
		if recorder.Status() >= http.StatusInternalServerError {
			level = zapcore.ErrorLevel
		}
		if name, ok := caddyhttp.GetVar(r.Context(), caddyhttp.LogLevelVar).(string); ok {
			if l, err := zapcore.ParseLevel(name); err == nil {
				level = min(max(l, zapcore.DebugLevel), zapcore.ErrorLevel)
			}
		}
		fields := []zap.Field{
			zap.Object("request", request),
			zap.Int64("bytes_read", body.n),
			zap.String("user_id", a.userID(r.Context())),
			zap.Duration("duration", time.Since(begin)),
			zap.Int("size", recorder.Size()),
			zap.Int("status", recorder.Status()),
			zap.Object("resp_headers", caddyhttp.LoggableHTTPHeader{Header: withoutSession(recorder.Header())}),
		}
		for _, name := range loggerNames(s.Logs, r) {
			if c := a.log.Named(name).Check(level, "handled request"); c != nil {
				c.Write(fields...)
			}
		}
	}
}

// outermostRecorder is the recorder that stands nearest to the client: Caddy's own, which is there when the request is
// logged.
func outermostRecorder(w http.ResponseWriter) (found caddyhttp.ResponseRecorder) {
	for {
		if recorder, ok := w.(caddyhttp.ResponseRecorder); ok {
			found = recorder
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return found
		}
		w = wrapper.Unwrap()
	}
}

// loggable is the request as it came, less the id of its session.
func loggable(r *http.Request) caddyhttp.LoggableHTTPRequest {
	safe := r.WithContext(r.Context())
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		safe.Method, safe.RequestURI = original.Method, original.RequestURI
	}
	safe.RequestURI = withoutSessionID(safe.RequestURI)
	safe.Header = withoutSession(r.Header)
	return caddyhttp.LoggableHTTPRequest{Request: safe}
}

func withoutSessionID(uri string) string {
	path, query, ok := strings.Cut(uri, "?")
	if !ok {
		return uri
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return path + "?" + redacted
	}
	if !values.Has("sessionId") && !values.Has("token") {
		return uri
	}
	for _, name := range []string{"sessionId", "token"} { // the latter is Jupyter's
		if values.Has(name) {
			values.Set(name, redacted)
		}
	}
	return path + "?" + values.Encode()
}

func withoutSession(h http.Header) http.Header {
	h = h.Clone()
	if h.Get(sessionHeader) != "" {
		h.Set(sessionHeader, redacted)
	}
	return h
}

// loggerNames are the loggers that the configuration has for the request, as Caddy finds them.
func loggerNames(logs *caddyhttp.ServerLogConfig, r *http.Request) []string {
	if chosen, ok := caddyhttp.GetVar(r.Context(), caddyhttp.AccessLoggerNameVarKey).([]any); ok {
		names := make([]string, 0, len(chosen))
		for _, name := range chosen {
			if name, ok := name.(string); ok {
				names = append(names, name)
			}
		}
		return names
	}
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if names, ok := logs.LoggerNames[host]; ok {
		return names
	}
	labels := strings.Split(host, ".")
	for i := range labels {
		labels[i] = "*"
		if names, ok := logs.LoggerNames[strings.Join(labels, ".")]; ok {
			return names
		}
	}
	return []string{logs.DefaultLoggerName}
}

// countingBody counts what is read of a request.
type countingBody struct {
	io.ReadCloser
	n int64
}

func (c *countingBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	return n, err
}
