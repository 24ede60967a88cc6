package caddymodule

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestLiveCoreFollowsTheNewestConfiguration(t *testing.T) {
	t.Parallel()
	oldCore, oldLogs := observer.New(zapcore.InfoLevel)
	newCore, newLogs := observer.New(zapcore.DebugLevel)
	live := newLiveCore(zap.New(oldCore))
	log := zap.New(live).With(zap.String("worker", "7"))
	log.Debug("hidden")
	log.Info("first")
	live.follow(zap.New(newCore))
	log.Debug("second")
	if oldLogs.Len() != 1 || newLogs.Len() != 1 {
		t.Fatalf("got %v and %v", oldLogs.All(), newLogs.All())
	}
	if entry := newLogs.All()[0]; entry.Message != "second" || entry.ContextMap()["worker"] != "7" {
		t.Errorf("got %+v", entry)
	}
}
