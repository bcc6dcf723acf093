package supervisor

import (
	"reflect"
	"slices"
	"strings"

	"skywire/signal"
)

// Method describes one method of the control socket.
type Method struct {
	Name   string            `json:"name"`
	Scope  string            `json:"scope"`
	Params map[string]string `json:"params"` // name → type of JSON
	About  string            `json:"about"`
}

// Described answers viscript.describe: what can be asked, and what an app may say and is asked.
type Described struct {
	Proto   []int          `json:"proto"`
	Version string         `json:"version"`
	Methods []Method       `json:"methods"`
	Errors  map[string]int `json:"errors"` // name → code
	Limits  map[string]int `json:"limits"`
}

// methods is the table of what can be asked, with the parameters that each takes.
func methods() []Method {
	list := []Method{
		{Name: "describe", About: "this"},
		{Name: "status", About: "viscript itself"},
		{Name: "apps", About: "configured apps"},
		{Name: "help", Params: takes("app"), About: "one of them with its help text"},
		{Name: "start", Params: takes("app", "args", "attach"), About: "starts an app: {id}"},
		{Name: "ps", Params: takes("all"), About: "what runs, waits or has failed"},
		{Name: "ping", Params: takes("id"), About: "asks an app whether it is alive"},
		{Name: "ru", Params: takes("id"), About: "what an app's process tree uses"},
		{Name: "top", About: "ps and ru of all"},
		{Name: "metrics", About: "status and top as a text for Prometheus"},
		{Name: "stop", Params: takes("id", "timeout_ms"), About: "ends an app; answers when nothing of it is left"},
		{Name: "restart", Params: takes("id"), About: "stops an app and starts it under the same id"},
		{Name: "logs", Params: takes("id", "lines", "first", "follow", "cursor", "since", "level"), About: "lines of an app"},
		{Name: "events", Params: takes("lines", "first", "follow", "cursor", "since"), About: "what happened"},
		{Name: "attach", Params: takes("id"), About: "notifications viscript.output until the app ends"},
		{Name: "input", Params: takes("id", "data"), About: "writes to an app; no data ends its input"},
		{Name: "resize", Params: takes("id", "columns", "rows"), About: "how large the terminal of who attached is"},
		{Name: "signal", Params: takes("id", "signal"), About: "sends INT, TERM or HUP to the first process"},
		{Name: "reload", Params: takes("dry_run"), About: "reads config.yaml again"},
		{Name: "apply", Params: takes("text", "confirm_within_ms", "dry_run"), About: "makes text the config.yaml; returns to the old one unless confirmed in time"},
		{Name: "confirm", About: "keeps what apply changed"},
		{Name: "rollback", Params: takes("version"), About: "an earlier config.yaml again; 0: the one before"},
		{Name: "versions", About: "earlier texts of config.yaml"},
		{Name: "audit", Params: takes("lines", "first", "follow", "cursor", "since"), About: "who changed what, and who was refused"},
		{Name: "web", About: "an address that opens the web page once"},
		{Name: "upgrade", About: "replaces viscript by its new file"},
	}
	for i := range list {
		list[i].Name = "viscript." + list[i].Name
		list[i].Scope = scopeOf(list[i].Name).String()
		if list[i].Params == nil {
			list[i].Params = map[string]string{}
		}
	}
	return list
}

// takes looks parameters up, so that the table can't name one that there is not.
func takes(names ...string) map[string]string {
	out := map[string]string{}
	t := reflect.TypeFor[params]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if !slices.Contains(names, name) {
			continue
		}
		kind := t.Field(i).Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		out[name] = map[reflect.Kind]string{
			reflect.String: "string", reflect.Bool: "boolean", reflect.Slice: "array",
			reflect.Int: "number", reflect.Int64: "number", reflect.Uint64: "number",
			reflect.Uint16: "number",
		}[kind.Kind()]
		if name == "data" {
			out[name] = "base64 string"
		}
	}
	return out
}

func (s *Supervisor) describe() Described {
	d := Described{Proto: []int{1}, Version: s.c.Version, Methods: methods(), Errors: map[string]int{}, Limits: map[string]int{
		"line_bytes": signal.MaxLine, "requests": signal.MaxRequests, "files": signal.MaxFiles,
	}}
	for _, e := range []*signal.Error{
		signal.ErrParse, signal.ErrInvalid, signal.ErrUnknownMethod, signal.ErrUsage, signal.ErrInternal, signal.ErrNotFound,
		signal.ErrRefused, signal.ErrUnreachable, signal.ErrTimeout, signal.ErrBusy, signal.ErrUnsupported, signal.ErrNotRunning,
	} {
		d.Errors[e.Name] = e.Code
	}
	return d
}
