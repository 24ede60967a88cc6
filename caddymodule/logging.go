package caddymodule

import (
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// liveCore is the log of an object that outlives the configuration it was made for, such as a pool. Caddy closes the
// writers of a retired configuration, so what is logged goes to the newest configuration that uses the object.
type liveCore struct {
	current *atomic.Pointer[zapcore.Core]
	fields  []zapcore.Field // of With
}

func newLiveCore(logger *zap.Logger) *liveCore {
	c := &liveCore{current: new(atomic.Pointer[zapcore.Core])}
	c.follow(logger)
	return c
}

// follow makes everything derived from c log to logger from now on.
func (c *liveCore) follow(logger *zap.Logger) {
	core := logger.Core()
	c.current.Store(&core)
}

// Enabled and the methods below make liveCore a zapcore.Core.
func (c *liveCore) Enabled(level zapcore.Level) bool { return (*c.current.Load()).Enabled(level) }

// With returns a core that adds fields and follows along with c.
func (c *liveCore) With(fields []zapcore.Field) zapcore.Core {
	return &liveCore{current: c.current, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check adds the core of the moment to the entry's.
func (c *liveCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	core := *c.current.Load()
	if len(c.fields) > 0 {
		core = core.With(c.fields)
	}
	return core.Check(entry, checked)
}

// Write is for callers that skip Check.
func (c *liveCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return (*c.current.Load()).With(c.fields).Write(entry, fields)
}

// Sync flushes the core of the moment.
func (c *liveCore) Sync() error { return (*c.current.Load()).Sync() }

var _ zapcore.Core = (*liveCore)(nil)
