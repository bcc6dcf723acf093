package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestE2EViscriptScopes is T-S8 over a real mesh: a box whose key may read sees what runs and ends nothing, one whose key may
// operate does, and a stranger gets no word; the box that was asked knows who it was.
func TestE2EViscriptScopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vscope")
	w.chain("read", "box", "oper", "none")
	box := w.box["box"]
	w.must(box.WriteConfig("settings: {remote: {read: [" + w.key["read"] + "], operate: [" + w.key["oper"] + "]}}\n" +
		"apps:\n  held: {path: /bin/sleep, default_args: [1000], autostart: true}\n"))
	p := w.start("box", "viscript", "viscript", "run", "--headless")
	for _, from := range []string{"read", "oper", "none"} {
		w.reach(from, "box")
	}
	ps := func(from string) (list []psEntry, err error) {
		err = w.box[from].SkywireJSON(t.Context(), &list, "viscript", "-n", w.key["box"], "ps")
		return list, err
	}
	for _, from := range []string{"read", "oper"} {
		w.wait("the viscript of box answers "+from, func(context.Context) error {
			list, err := ps(from)
			if err == nil && (len(list) != 1 || list[0].Name != "held") {
				err = errors.New("not held")
			}
			return w.alive(p, err)
		})
	}
	path, err := builtBinary()
	w.must(err)
	before := w.commands("box")
	for _, verb := range [][]string{{"stop", "held"}, {"start", "held"}, {"restart", "held"}, {"reload"}, {"upgrade"}, {"audit"}} {
		w.refuses("read", []string{"exit status 5", "needs the scope"}, path, append([]string{"viscript", "-n", w.key["box"]}, verb...)...)
	}
	w.refuses("oper", []string{"exit status 5", "needs the scope admin"}, path, "viscript", "-n", w.key["box"], "reload")
	for _, verb := range []string{"ps", "status"} {
		w.refuses("none", []string{"exit status"}, path, "viscript", "-n", w.key["box"], verb)
	}
	if after := w.commands("box"); after != before || !strings.Contains(after, "sleep 1000") {
		t.Errorf("the box runs %s, before %s", after, before)
	}
	if _, err := w.box["oper"].Skywire(t.Context(), "viscript", "-n", w.key["box"], "stop", "held"); err != nil {
		t.Error(err)
	}
	if after := w.commands("box"); strings.Contains(after, "sleep 1000") {
		t.Errorf("after the stop the box runs %s", after)
	}
	audit := w.skywire("box", "viscript", "audit")
	for _, want := range []string{w.key["read"] + " (read): stop held", w.key["oper"] + " (operate): stop held: done"} {
		if !strings.Contains(audit, want) {
			t.Errorf("audit lacks %q: %s", want, audit)
		}
	}
}
