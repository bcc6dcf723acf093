package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"skywire/cmd/internal/applet"
)

// luciName is the name under which rpcd of OpenWrt runs this binary: for "list", and for "call METHOD" with its arguments on stdin. It
// is what the views of luci-app-skywire ask. Each method is verbs of the applets with --json, run in here one after the other, since
// a start costs a router a third of a second.
const luciName = "luci.skywire"

const (
	luciMax  = 64 << 10 // of arguments; an invite is the longest
	luciMost = 100      // entries of a list that a page shows
)

// luciMethod answers a call. Args are the names of its arguments, strings all.
type luciMethod struct {
	name string
	args []string
	do   func(l *luciCall) any
}

func luciMethods() []luciMethod {
	return []luciMethod{
		{"status", nil, func(l *luciCall) any {
			return map[string]any{
				"node": l.ask("node", "status"), "peers": l.ask("node", "peers"), "paths": l.ask("node", "paths"),
				"vpn": l.ask("vpn", "status"), "lock": l.ask("vpn", "killswitch", "show"), "socks": l.ask("socks", "status"),
			}
		}},
		{"servers", nil, func(l *luciCall) any {
			return map[string]any{"vpn": l.ask("vpn", "servers"), "socks": l.ask("socks", "servers")}
		}},
		{"apps", nil, func(l *luciCall) any {
			return map[string]any{"apps": l.ask("viscript", "apps"), "running": l.ask("viscript", "ps", "-a")}
		}},
		{"start", []string{"app"}, func(l *luciCall) any { return l.ask("viscript", "start", l.args["app"]) }},
		{"stop", []string{"id"}, func(l *luciCall) any { return l.ask("viscript", "stop", l.args["id"]) }},
		{"logs", []string{"id"}, func(l *luciCall) any { return l.ask("viscript", "logs", l.args["id"], "-n", "200") }},
		{"join", []string{"invite"}, func(l *luciCall) any {
			l.stdin = l.args["invite"] + "\n" // others see arguments
			return l.ask("node", "join", "-", "--wait", "10s")
		}},
		{"release", nil, func(l *luciCall) any { return l.ask("vpn", "release") }},
	}
}

// luciCall is one call.
type luciCall struct {
	ctx   context.Context
	env   *applet.Env
	args  map[string]string
	stdin string
	run   func(ctx context.Context, e *applet.Env) int
}

// luciAnswer is what a verb said: its document, or why there is none.
type luciAnswer struct {
	Data  json.RawMessage `json:"data,omitempty"`
	More  int             `json:"more,omitempty"` // entries that were left out
	Error string          `json:"error,omitempty"`
	Code  int             `json:"code,omitempty"` // exit status
}

// ask runs a verb of an applet.
func (l *luciCall) ask(name string, words ...string) (a luciAnswer) {
	var out, said bytes.Buffer
	e := *l.env
	e.Args = append([]string{name, "--json"}, words...) // before the verb: what follows an app's name is the app's
	e.Stdin, e.Stdout, e.Stderr = strings.NewReader(l.stdin), &out, &said
	if a.Code = l.run(l.ctx, &e); a.Code != applet.OK {
		text, _, _ := strings.Cut(said.String(), "\nusage: ") // of no use on a page
		a.Error = strings.TrimSpace(text)
	}
	if json.Valid(out.Bytes()) {
		a.Data = out.Bytes()
	}
	var list []json.RawMessage
	if json.Unmarshal(a.Data, &list) == nil && len(list) > luciMost {
		a.More = len(list) - luciMost
		a.Data, _ = json.Marshal(list[len(list)-luciMost:]) // of logs the last ones
	}
	return a
}

// luci answers rpcd. Run runs an applet.
func luci(ctx context.Context, e *applet.Env, run func(ctx context.Context, e *applet.Env) int) int {
	switch {
	case len(e.Args) == 1 && e.Args[0] == "list":
		all := map[string]map[string]string{}
		for _, m := range luciMethods() {
			all[m.name] = map[string]string{}
			for _, a := range m.args {
				all[m.name][a] = "text"
			}
		}
		return e.Fail(luciName, e.PrintJSON(all))
	case len(e.Args) == 2 && e.Args[0] == "call":
		for _, m := range luciMethods() {
			if m.name == e.Args[1] {
				return e.Fail(luciName, luciDo(&luciCall{ctx: ctx, env: e, run: run}, m))
			}
		}
	}
	e.Talk(luciName, "rpcd of OpenWrt runs this: list, or call METHOD with a JSON object on stdin; see luci-app-skywire")
	return applet.BadUsage
}

// luciDo takes what a method takes out of the arguments; rpcd adds others of its own. A word that an applet would read as a flag is
// refused: who may start an app may not say how.
func luciDo(l *luciCall, m luciMethod) error {
	text, err := io.ReadAll(io.LimitReader(l.env.Stdin, luciMax+1))
	if err != nil {
		return err
	}
	given := map[string]json.RawMessage{}
	if len(text) > luciMax || len(bytes.TrimSpace(text)) > 0 && json.Unmarshal(text, &given) != nil {
		return applet.Usagef("the arguments are no JSON object of at most %d bytes", luciMax)
	}
	l.args = map[string]string{}
	for _, name := range m.args {
		var v string
		if json.Unmarshal(given[name], &v) != nil || v == "" || v[0] == '-' || strings.ContainsAny(v, "\n\x00") {
			return l.env.PrintJSON(luciAnswer{Error: fmt.Sprintf("%s: not given, or not a word", name), Code: applet.BadUsage})
		}
		l.args[name] = v
	}
	return l.env.PrintJSON(m.do(l))
}
