package script

import (
	"encoding/json"
	"fmt"
	"time"

	"skywire/mesh/meshtest"
)

// listed is a node as manager nodes --json prints it, as far as it matters here.
type listed struct {
	Key    string `json:"key"`
	Name   string `json:"name"`
	Online bool   `json:"online"`
	Links  []struct {
		Key  string  `json:"key"`
		RTT  float64 `json:"rtt_ms"`
		Loss float64 `json:"loss"`
	} `json:"links"`
}

// mesh adds the nodes and links that a manager knows. A link counts if both ends state it, at the worse of both measures.
func (s *Script) mesh(file string, open func(string) ([]byte, error)) error {
	if open == nil {
		return fmt.Errorf("%w: no files can be read here", ErrTopology)
	}
	b, err := open(file)
	if err != nil {
		return err
	}
	var all []listed
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("%s: %w: %w", file, ErrTopology, err)
	}
	names := map[string]string{}
	w := &words{}
	for _, nd := range all {
		if !nd.Online && len(nd.Links) == 0 {
			continue
		}
		name := nd.Name
		if name == "" || s.nodes[name] || reserved[name] {
			name = nd.Key[:min(8, len(nd.Key))]
		}
		names[nd.Key] = name
		s.add(w, name)
		s.build = append(s.build, func(x *world) { x.add(x.net.Add(name, meshtest.Options{})) })
	}
	if w.err != nil || len(names) == 0 {
		return fmt.Errorf("%s: %w: %w", file, ErrTopology, orNone(w.err))
	}
	s.links(all, names)
	return nil
}

func orNone(err error) error {
	if err == nil {
		return fmt.Errorf("no node in it is on line")
	}
	return err
}

func (s *Script) links(all []listed, names map[string]string) {
	type measure struct{ rtt, loss float64 }
	said := map[[2]string]measure{}
	for _, nd := range all {
		for _, l := range nd.Links {
			said[[2]string{nd.Key, l.Key}] = measure{l.RTT, l.Loss}
		}
	}
	for _, nd := range all {
		for _, l := range nd.Links {
			a, b := names[nd.Key], names[l.Key]
			back, both := said[[2]string{l.Key, nd.Key}]
			if !both || a == "" || b == "" || nd.Key >= l.Key || s.wired[[2]string{a, b}] {
				continue
			}
			rtt, loss := max(l.RTT, back.rtt, 0), min(max(l.Loss, back.loss, 0), 1)
			s.join(a, b, meshtest.Wire{Delay: min(time.Duration(rtt*float64(time.Millisecond)/2), time.Minute), Loss: loss / 2}) // loss of a round trip
		}
	}
}
