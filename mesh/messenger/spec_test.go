package messenger

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

var update = flag.Bool("update", false, "write the vectors into SPEC.md")

// specVectors are the lines of SPEC.md's last section.
func specVectors(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	line := func(name, text string) { fmt.Fprintf(&b, "%s\n\n    %s\n\n", name, text) }
	token := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	line("ask with the token 01 02 … 10", hex.EncodeToString(word{op: opAsk, token: token, name: "Ann", text: "hello"}.append(nil)))
	line("accept", hex.EncodeToString(word{op: opAccept, name: "Bob"}.append(nil)))
	line("gone", hex.EncodeToString(word{op: opGone}.append(nil)))
	call, err := callBody(Call{Verb: "ping", Args: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	line("control", string(call))
	id := envelope.ItemID{1, 2}.String()
	line("result", string(appendJSON(nil, Result{Call: id, Result: []byte(`"up"`)})))
	line("result, refused", string(appendJSON(nil, Result{Call: id, Error: signal.Errorf(signal.ErrRefused, "not allowed")})))
	return b.String()
}

func TestSpec(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	const head = "## Vectors\n\n"
	before, got, ok := strings.Cut(string(raw), head)
	want := strings.TrimRight(specVectors(t), "\n") + "\n"
	if *update {
		if err := os.WriteFile("SPEC.md", []byte(before+head+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !ok || got != want {
		t.Errorf("SPEC.md has other vectors (go test -run TestSpec -update writes them):\n%s\nwant\n%s", got, want)
	}
	// What stands there is read as it was meant.
	for name, check := range map[string]func(line string) bool{
		"ask with": func(s string) bool {
			b, err := hex.DecodeString(s)
			w, err2 := parseWord(b)
			return err == nil && err2 == nil && w.op == opAsk && w.name == "Ann" && w.text == "hello" && w.token[15] == 16
		},
		"control":         func(s string) bool { c, err := ParseCall([]byte(s)); return err == nil && c.Verb == "ping" },
		"result, refused": func(s string) bool { r, err := ParseResult([]byte(s)); return err == nil && r.Error != nil },
	} {
		_, rest, found := strings.Cut(got, name)
		_, rest, _ = strings.Cut(rest, "\n\n    ")
		line, _, _ := strings.Cut(rest, "\n")
		if !found || !check(line) {
			t.Errorf("%s: %q is read otherwise", name, line)
		}
	}
}
