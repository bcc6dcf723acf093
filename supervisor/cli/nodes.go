package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"skywire/supervisor/config"
)

// maxAtOnce bounds the boxes that are asked at the same time.
const maxAtOnce = 16

// answerOf is what one of several boxes answered.
type answerOf struct {
	Node   string          `json:"node"`
	Name   string          `json:"name,omitempty"`
	Status int             `json:"status"` // as the exit status of the verb alone
	Result json.RawMessage `json:"result"`
	Errors string          `json:"errors,omitempty"`

	out []byte
}

// elsewhere runs a verb on other boxes. Of one it is as if it were here; of several each answer is shown under the name
// of its box, those that fail too. The exit status is then 0 if all did it, that of the failures if they agree, else 1.
func (s *session) elsewhere(ctx context.Context, word string, words []string) error {
	v := find(words[0])
	switch {
	case v == nil:
		return s.execute(ctx, words) // says what is wrong
	case v.local:
		return usageError{v.Name + " looks at this box alone: leave -n away"}
	case s.c.Nodes == nil:
		return usageError{"there is no way to other boxes here"}
	}
	boxes, err := s.c.Nodes(ctx, word)
	if err != nil {
		return err
	}
	if len(boxes) == 1 && !strings.HasPrefix(word, "@") {
		one := *s
		one.node, one.conn = boxes[0].Word, nil
		defer one.close()
		return one.execute(ctx, words)
	}
	if v.alone || slices.Contains(words, "-f") || v.Name == "start" && slices.Contains(words[1:min(2, len(words))], "-a") {
		return usageError{v.Name + " takes one box at a time"}
	}
	input, err := s.readOnce(v, words)
	if err != nil {
		return err
	}
	answers := make([]answerOf, len(boxes))
	slots := make(chan struct{}, maxAtOnce)
	var all sync.WaitGroup
	for i, box := range boxes {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			answers[i] = s.ask(ctx, box, words, input)
		})
	}
	all.Wait()
	return s.showAll(answers, s.json || slices.Contains(words, "--json"))
}

// readOnce reads what comes in for a verb that takes it for every box.
func (s *session) readOnce(v *Verb, words []string) ([]byte, error) {
	if v.Name != "apply" || s.c.Stdin == nil || !slices.Contains(words, "-") {
		return nil, nil
	}
	return io.ReadAll(io.LimitReader(s.c.Stdin, config.MaxFile+1))
}

// ask runs a verb on one of several boxes, with input for those that read.
func (s *session) ask(ctx context.Context, box Box, words []string, input []byte) answerOf {
	var out, errs bytes.Buffer
	one := session{c: s.c, out: &out, errs: &errs, json: s.json, node: box.Word, dialing: new(sync.Mutex)}
	one.c.Stdin = bytes.NewReader(input)
	defer one.close()
	a := answerOf{Node: box.Word, Name: box.Name}
	a.Status = one.report(one.execute(ctx, words))
	a.out, a.Errors = out.Bytes(), errs.String()
	a.Result = json.RawMessage("null")
	if json.Valid(a.out) {
		a.Result = a.out
	}
	return a
}

// showAll prints the answers and sums up what failed.
func (s *session) showAll(answers []answerOf, asJSON bool) error {
	status := 0
	var failed []string
	for _, a := range answers {
		name := a.Name
		if name == "" {
			name = a.Node
		}
		if a.Status != 0 {
			if len(failed) == 0 {
				status = a.Status
			} else if status != a.Status {
				status = 1
			}
			failed = append(failed, name)
		}
		if asJSON {
			continue
		}
		fmt.Fprintf(s.out, "== %s\n%s", name, a.out)
		if a.Errors != "" {
			fmt.Fprintf(s.errs, "== %s\n%s", name, a.Errors)
		}
	}
	if asJSON {
		if err := s.printJSON(answers); err != nil {
			return err
		}
	}
	if status == 0 {
		return nil
	}
	s.talk("%d of %d boxes failed: %s", len(failed), len(answers), strings.Join(failed, " "))
	return exitError{status}
}
