package caddymodule

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// liveCore is the log of an object that several configurations share, such as a pool. Its entries go to the logger of the
// configuration that serves: Caddy closes the log files of a configuration that it retires or refuses, and nobody looks into
// those of one that never served.
type liveCore struct {
	target *logTarget
	fields []zapcore.Field // added by With
}

// logTarget is where the entries of a liveCore and of all that is derived from it go.
type logTarget struct {
	current atomic.Pointer[zapcore.Core]

	mu      sync.Mutex
	loggers []*sharedLogger // the one in use comes first, then the others in the order in which they came
}

// sharedLogger is the logger of one configuration among those of a liveCore.
type sharedLogger struct {
	target *logTarget
	core   zapcore.Core
}

// newLiveCore returns a log that uses logger until a configuration joins.
func newLiveCore(logger *zap.Logger) *liveCore {
	c := &liveCore{target: new(logTarget)}
	c.target.use(logger.Core())
	return c
}

func (t *logTarget) use(core zapcore.Core) { t.current.Store(&core) }

// join adds the logger of a configuration that is being provisioned. It is used once its configuration serves, or at once when
// it is the only one. The caller has to call leave in the end.
func (c *liveCore) join(logger *zap.Logger) *sharedLogger {
	l := &sharedLogger{target: c.target, core: logger.Core()}
	l.target.mu.Lock()
	defer l.target.mu.Unlock()
	l.target.loggers = append(l.target.loggers, l)
	if len(l.target.loggers) == 1 {
		l.target.use(l.core)
	}
	return l
}

// serves says that the logger's configuration has been accepted: it is used from now on.
func (l *sharedLogger) serves() {
	l.target.mu.Lock()
	defer l.target.mu.Unlock()
	l.removeLocked()
	l.target.loggers = slices.Insert(l.target.loggers, 0, l)
	l.target.use(l.core)
}

// leave says that the logger's configuration has ended, or was refused. If the logger was in use, the next one takes its place, or
// Caddy's default log when there is none.
func (l *sharedLogger) leave() {
	l.target.mu.Lock()
	defer l.target.mu.Unlock()
	l.removeLocked()
	if len(l.target.loggers) == 0 {
		l.target.use(caddy.Log().Core())
		return
	}
	l.target.use(l.target.loggers[0].core)
}

func (l *sharedLogger) removeLocked() {
	l.target.loggers = slices.DeleteFunc(l.target.loggers, func(other *sharedLogger) bool { return other == l })
}

// Enabled and the methods below make liveCore a zapcore.Core.
func (c *liveCore) Enabled(level zapcore.Level) bool {
	return (*c.target.current.Load()).Enabled(level)
}

// With returns a core that adds fields, and always writes to the same logger as c.
func (c *liveCore) With(fields []zapcore.Field) zapcore.Core {
	return &liveCore{target: c.target, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check adds the current core to the entry's.
func (c *liveCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	core := *c.target.current.Load()
	if len(c.fields) > 0 {
		core = core.With(c.fields)
	}
	return core.Check(entry, checked)
}

// Write writes to the current core, for callers that skip Check.
func (c *liveCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return (*c.target.current.Load()).With(c.fields).Write(entry, fields)
}

// Sync flushes the current core.
func (c *liveCore) Sync() error { return (*c.target.current.Load()).Sync() }

var _ zapcore.Core = (*liveCore)(nil)
