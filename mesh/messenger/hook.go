package messenger

import (
	"fmt"
	"strings"
	"time"

	"skywire/mesh/key"
)

// Hook is what is done on an event.
type Hook struct {
	On   []string      `yaml:"on"`   // message, file, presence, contact; empty: message
	With []string      `yaml:"with"` // only with these contacts, by our names or keys; empty: all
	Exec []string      `yaml:"exec"` // a program and its arguments; no shell sees them
	Post string        `yaml:"post"` // or an address (http, https) that is sent the event
	Time time.Duration `yaml:"time"` // it may take so long, 30 s unless it says
}

// Validate checks what a person wrote.
func (h Hook) Validate() error {
	for _, on := range h.On {
		switch on {
		case EventMessage, EventFile, EventPresence, EventContact:
		default:
			return fmt.Errorf("hook on %q: %w: message, file, presence or contact", on, ErrFormat)
		}
	}
	if (len(h.Exec) == 0) == (h.Post == "") {
		return fmt.Errorf("hook: %w: either exec or post", ErrFormat)
	}
	if h.Post != "" && !strings.HasPrefix(h.Post, "http://") && !strings.HasPrefix(h.Post, "https://") {
		return fmt.Errorf("hook: post %q: %w: want http:// or https://", h.Post, ErrFormat)
	}
	if h.Time < 0 || h.Time > maxHookTime {
		return fmt.Errorf("hook: time %s: %w: at most %s", h.Time, ErrFormat, maxHookTime)
	}
	return nil
}

func (h Hook) wants(e *HookEvent) bool {
	on := len(h.On) == 0 && e.Event == EventMessage
	for _, w := range h.On {
		on = on || w == e.Event
	}
	with := len(h.With) == 0
	for _, w := range h.With {
		with = with || w == e.Name && w != "" || w == e.Account.String()
	}
	return on && with
}

// HookEvent is what a hook gets as JSON: on its standard input, or as the body of a POST.
type HookEvent struct {
	Event   string     `json:"event"`
	Time    time.Time  `json:"time"`
	Account key.Public `json:"account"`
	Name    string     `json:"name,omitempty"` // our petname
	Online  *bool      `json:"online,omitempty"`
	State   string     `json:"state,omitempty"` // of a file or a contact
	Message *Message   `json:"message,omitempty"`
	File    *FileInfo  `json:"file,omitempty"`
}

// Environ is what a program gets beside the JSON: enough for a script without a parser. Nothing in it was written by the other
// side but the name of a file, which the engine has made safe.
func (e *HookEvent) Environ() []string {
	env := []string{
		"SKYWIRE_EVENT=" + e.Event, "SKYWIRE_ACCOUNT=" + e.Account.String(), "SKYWIRE_NAME=" + e.Name,
		"SKYWIRE_TIME=" + e.Time.Format(time.RFC3339),
	}
	if e.Online != nil {
		env = append(env, fmt.Sprintf("SKYWIRE_ONLINE=%t", *e.Online))
	}
	if e.State != "" {
		env = append(env, "SKYWIRE_STATE_NOW="+e.State)
	}
	if e.Message != nil {
		env = append(env, "SKYWIRE_ID="+e.Message.ID.String())
	}
	if e.File != nil {
		env = append(env, "SKYWIRE_ID="+e.File.ID, "SKYWIRE_FILE="+strings.ReplaceAll(e.File.Path, "\x00", ""))
	}
	return env
}

// Events that hooks are run on.
const (
	EventMessage  = "message"
	EventFile     = "file"     // one is offered, or has come whole
	EventPresence = "presence" // a contact has come or gone
	EventContact  = "contact"  // somebody asks, confirmed, or is said to have another key
)
