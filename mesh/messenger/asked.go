package messenger

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"sync"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

const (
	resultsBucket = "results"
	// resultsKept is how many calls to others are remembered with what came of them.
	resultsKept = 256
)

// CallOut is a call of ours to another box.
type CallOut struct {
	ID     string          `json:"id"`
	To     key.Public      `json:"to"`
	Verb   string          `json:"verb"`
	Args   []string        `json:"args,omitempty"`
	Time   time.Time       `json:"time"`
	Done   time.Time       `json:"done,omitzero"` // when the answer came
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
}

// Calls are ours to others. Its methods may be called from any goroutine.
type Calls struct {
	shelf Shelf

	mu      sync.Mutex // guards the fields below, over the shelf too
	changed chan struct{}
	kept    int
}

// OpenCalls reads which calls are known.
func OpenCalls(s Shelf) (*Calls, error) {
	c := &Calls{shelf: s, changed: make(chan struct{})}
	err := s.Range(resultsBucket, nil, func(_, _ []byte) bool { c.kept++; return true })
	if err != nil {
		return nil, fmt.Errorf("read calls: %w", err)
	}
	return c, nil
}

// Send sends a call and notes it, before its answer can come. send gives the id.
func (c *Calls) Send(o CallOut, send func() (MessageID, error)) (CallOut, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, err := send()
	if err != nil {
		return o, err
	}
	o.ID = id.String()
	if err := c.putLocked(o); err != nil {
		return o, err
	}
	c.kept++
	return o, c.forgetLocked()
}

// Answered takes an item of the kind result. One of an account that was not asked is nothing.
func (c *Calls) Answered(from key.Public, body []byte, now time.Time) error {
	r, err := ParseResult(body)
	if err != nil {
		return nil // theirs to get right
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o, err := c.getLocked(r.Call)
	if err != nil || o.To != from || !o.Done.IsZero() {
		return nil
	}
	o.Done, o.Result = now.UTC(), r.Result
	if r.Error != nil {
		if o.Error, err = json.Marshal(r.Error); err != nil {
			return err
		}
	}
	if err := c.putLocked(o); err != nil {
		return err
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// Wait returns a call, when it is answered or ctx ends; with wait false at once.
func (c *Calls) Wait(ctx context.Context, id string, wait bool) (CallOut, error) {
	for {
		c.mu.Lock()
		o, err := c.getLocked(id)
		changed := c.changed
		c.mu.Unlock()
		if err != nil || !wait || !o.Done.IsZero() {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, ctx.Err()
		case <-changed:
		}
	}
}

// List returns all calls that are remembered, the oldest first.
func (c *Calls) List() ([]CallOut, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listLocked()
}

func (c *Calls) listLocked() ([]CallOut, error) {
	all := []CallOut{}
	err := c.shelf.Range(resultsBucket, nil, func(_, v []byte) bool {
		var o CallOut
		if json.Unmarshal(v, &o) == nil {
			all = append(all, o)
		}
		return true
	})
	sort.Slice(all, func(i, j int) bool { return all[i].Time.Before(all[j].Time) })
	return all, err
}

func (c *Calls) getLocked(id string) (o CallOut, err error) {
	raw, err := c.shelf.Get(resultsBucket, []byte(id))
	if err != nil {
		return o, err
	}
	if raw == nil || json.Unmarshal(raw, &o) != nil {
		return o, ErrNoCall
	}
	return o, nil
}

func (c *Calls) putLocked(o CallOut) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return c.shelf.Put(resultsBucket, []byte(o.ID), raw)
}

func (c *Calls) forgetLocked() error {
	if c.kept <= resultsKept {
		return nil
	}
	all, err := c.listLocked()
	if err != nil {
		return err
	}
	c.kept = len(all)
	for _, o := range all[:max(0, len(all)-resultsKept+resultsKept/8)] {
		if err := c.shelf.Delete(resultsBucket, []byte(o.ID)); err != nil {
			return err
		}
		c.kept--
	}
	return nil
}

// callBody encodes a call.
func callBody(c Call) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if len(body) > envelope.MaxBody {
		return nil, fmt.Errorf("call of %d bytes: %w: at most %d", len(body), ErrFormat, envelope.MaxBody)
	}
	_, err = ParseCall(body)
	return body, err
}
