package messenger

import (
	"context"
	"encoding/json"
	"strconv"

	"skywire/mesh/key"
	"skywire/signal"
)

// Viscript asks the viscript of this box.
type Viscript func(ctx context.Context, method string, params map[string]any) (json.RawMessage, error)

// logLines is how many lines of a log one call returns unless it says, and at most.
const (
	logLines    = 50
	maxLogLines = 200
)

// ViscriptVerbs are viscript's words that make sense by message: those that need no connection to stay. Their scopes are those
// that viscript itself has for them.
func ViscriptVerbs(ask Viscript) []ControlVerb {
	plain := func(method string) func(context.Context, key.Public, Call) (any, error) {
		return func(ctx context.Context, _ key.Public, c Call) (any, error) {
			if len(c.Args) > 0 {
				return nil, usage(c, "no argument")
			}
			return ask(ctx, "viscript."+method, nil)
		}
	}
	ofID := func(method string) func(context.Context, key.Public, Call) (any, error) {
		return func(ctx context.Context, _ key.Public, c Call) (any, error) {
			if len(c.Args) != 1 {
				return nil, usage(c, "one ID")
			}
			return ask(ctx, "viscript."+method, map[string]any{"id": c.Args[0]})
		}
	}
	return []ControlVerb{
		{"status", "", ScopeRead, "of viscript", plain("status")},
		{"apps", "", ScopeRead, "that are configured", plain("apps")},
		{"ps", "", ScopeRead, "apps that run", plain("ps")},
		{"versions", "", ScopeRead, "of config.yaml", plain("versions")},
		{"ping", "ID", ScopeRead, "an app", ofID("ping")},
		{"ru", "ID", ScopeRead, "what an app uses", ofID("ru")},
		{"logs", "ID [LINES]", ScopeRead, "the last lines of an app", func(ctx context.Context, _ key.Public, c Call) (any, error) {
			n := logLines
			if len(c.Args) == 2 {
				n, _ = strconv.Atoi(c.Args[1])
			}
			if len(c.Args) < 1 || len(c.Args) > 2 || n < 1 || n > maxLogLines {
				return nil, usage(c, "ID, and how many lines, at most "+strconv.Itoa(maxLogLines))
			}
			return ask(ctx, "viscript.logs", map[string]any{"id": c.Args[0], "lines": n})
		}},
		{"start", "APP [ARGS…]", ScopeOperate, "an app that is configured", func(ctx context.Context, _ key.Public, c Call) (any, error) {
			if len(c.Args) < 1 {
				return nil, usage(c, "APP")
			}
			return ask(ctx, "viscript.start", map[string]any{"app": c.Args[0], "args": c.Args[1:]})
		}},
		{"restart", "ID", ScopeOperate, "an app", ofID("restart")},
		{"stop", "ID", ScopeOperate, "an app", ofID("stop")},
		{"sd", "ID", ScopeOperate, "stop an app, as viscript says it", ofID("stop")},
		{"reload", "", ScopeAdmin, "config.yaml", plain("reload")},
		{"apply", "[SECONDS]", ScopeAdmin, "another config.yaml, back to the one before unless confirmed within SECONDS", func(ctx context.Context, _ key.Public, c Call) (any, error) {
			p := map[string]any{"text": c.Text}
			if len(c.Args) == 1 {
				s, err := strconv.Atoi(c.Args[0])
				if err != nil || s < 1 || s > 24*60*60 {
					return nil, usage(c, "SECONDS of 1 to a day")
				}
				p["confirm_within_ms"] = s * 1000
			}
			if len(c.Args) > 1 || c.Text == "" {
				return nil, usage(c, "the text of a config.yaml")
			}
			return ask(ctx, "viscript.apply", p)
		}},
		{"confirm", "", ScopeAdmin, "an apply", plain("confirm")},
		{"rollback", "", ScopeAdmin, "to the config.yaml before", plain("rollback")},
	}
}

func usage(c Call, want string) error {
	return signal.Errorf(signal.ErrUsage, "%s wants %s", c.Verb, want)
}
