package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// maxAtOnce bounds the boxes that are asked at the same time.
const maxAtOnce = 16

// answerOf is what one of several boxes answered.
type answerOf struct {
	Node   string          `json:"node"`
	Status int             `json:"status"` // as the exit status of the verb alone
	Result json.RawMessage `json:"result"`
	Errors string          `json:"errors,omitempty"`

	out []byte
}

// elsewhere runs a verb on other boxes. Of one it is as if it were here; of several each answer is shown under the name
// of its box, those that fail too, and the exit status is that of the first that failed.
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
	nodes, err := s.c.Nodes(ctx, word)
	if err != nil {
		return err
	}
	if len(nodes) == 1 && word != "@all" {
		one := *s
		one.node, one.conn = nodes[0], nil
		defer one.close()
		return one.execute(ctx, words)
	}
	if v.alone || slices.Contains(words, "-f") || v.Name == "start" && slices.Contains(words[1:min(2, len(words))], "-a") {
		return usageError{v.Name + " takes one box at a time"}
	}
	answers := make([]answerOf, len(nodes))
	slots := make(chan struct{}, maxAtOnce)
	var all sync.WaitGroup
	for i, node := range nodes {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			answers[i] = s.ask(ctx, node, words)
		})
	}
	all.Wait()
	return s.showAll(answers, s.json || slices.Contains(words, "--json"))
}

// ask runs a verb on one of several boxes.
func (s *session) ask(ctx context.Context, node string, words []string) answerOf {
	var out, errs bytes.Buffer
	one := session{c: s.c, out: &out, errs: &errs, json: s.json, node: node}
	defer one.close()
	a := answerOf{Node: node}
	a.Status = one.report(one.execute(ctx, words))
	a.out, a.Errors = out.Bytes(), errs.String()
	a.Result = json.RawMessage("null")
	if json.Valid(a.out) {
		a.Result = a.out
	}
	return a
}

func (s *session) showAll(answers []answerOf, asJSON bool) error {
	var first error
	for _, a := range answers {
		if first == nil && a.Status != 0 {
			first = exitError{a.Status}
		}
		if asJSON {
			continue
		}
		fmt.Fprintf(s.out, "== %s\n%s", a.Node, a.out)
		if a.Errors != "" {
			fmt.Fprintf(s.errs, "== %s\n%s", a.Node, a.Errors)
		}
	}
	if asJSON {
		return errors.Join(s.printJSON(answers), first)
	}
	return first
}
