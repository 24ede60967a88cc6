package caddymodule

import (
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// Configurations come, are accepted or refused, and go. After each step the shared log goes to the one that serves.
func TestSharedLogGoesToTheConfigurationThatServes(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]struct{ step, want string }{
		"an accepted reload": {{"join a", "a"}, {"serves a", "a"}, {"join b", "a"}, {"serves b", "b"}, {"leave a", "b"}},
		"refused reloads": {{"join a", "a"}, {"serves a", "a"}, {"join b", "a"}, {"leave b", "a"}, {"join c", "a"}, {"leave c", "a"},
			{"join d", "a"}, {"serves d", "d"}, {"leave a", "d"}},
		"a reload that is refused after its start":  {{"join a", "a"}, {"serves a", "a"}, {"join b", "a"}, {"serves b", "b"}, {"leave b", "a"}},
		"a configuration that never says it serves": {{"join a", "a"}, {"join b", "a"}, {"leave a", "b"}},
		"two sites in each configuration": {{"join a", "a"}, {"join b", "a"}, {"serves a", "a"}, {"serves b", "b"},
			{"join c", "b"}, {"join d", "b"}, {"serves c", "c"}, {"serves d", "d"}, {"leave a", "d"}, {"leave b", "d"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs, joined := map[string]*observer.ObservedLogs{}, map[string]*sharedLogger{}
			live := newLiveCore(zap.NewNop())
			log := zap.New(live).With(zap.String("worker", "7"))
			for _, s := range steps {
				step, config, _ := strings.Cut(s.step, " ")
				switch step {
				case "join":
					core, observed := observer.New(zapcore.InfoLevel)
					logs[config], joined[config] = observed, live.join(zap.New(core))
				case "serves":
					joined[config].serves()
				case "leave":
					joined[config].leave()
				}
				log.Debug("hidden")
				log.Info("line")
				for config, observed := range logs {
					lines := observed.TakeAll()
					if config != s.want && len(lines) > 0 || config == s.want && (len(lines) != 1 || lines[0].ContextMap()["worker"] != "7") {
						t.Errorf("after %q %s holds %v, want the line in %s", s.step, config, lines, s.want)
					}
				}
			}
		})
	}
}
