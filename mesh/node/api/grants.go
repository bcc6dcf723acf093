package api

import (
	"context"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream"
)

// Streams outlive what admitted them unless somebody looks again: when an app registers anew with a shorter list, and
// when a certificate is revoked, runs out or comes back without a tag.

// live is a stream that a service has taken.
type live struct {
	service *service // as it was then; a later one of that name counts more
	stream  carried
}

// keep remembers a stream until forget is called.
func (r *registry) keep(s *service, st carried) (forget func()) {
	l := &live{service: s, stream: st}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[l] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.live, l)
	}
}

// recheck resets the streams of those whom their service no longer admits. A service that nobody offers any more is judged
// by its last list.
func (r *registry) recheck() {
	type question struct {
		service *service
		peer    key.Public
	}
	asked := map[question][]carried{}
	r.mu.Lock()
	for l := range r.live {
		s := l.service
		if now := r.offered[s.Name]; now != nil {
			s = now
		}
		q := question{s, l.stream.Peer()}
		asked[q] = append(asked[q], l.stream)
	}
	r.mu.Unlock()
	for q, streams := range asked {
		if r.allowed(q.service, q.peer) {
			continue
		}
		for _, st := range streams {
			st.Reset(stream.CodeReset)
		}
	}
}

// watchMembers looks again at each news of a certificate, until ctx ends.
func (s *Server) watchMembers(ctx context.Context) {
	for p := (EventsParams{Limit: MaxEvents}); ctx.Err() == nil; {
		wait, cancel := context.WithTimeout(ctx, MaxEventWait)
		all, err := s.node.Events(wait, p)
		cancel()
		if err != nil {
			if ctx.Err() == nil && wait.Err() == nil { // the node is about to end
				pause(ctx, time.Second)
			}
			continue
		}
		again := all.Missed > 0
		for _, e := range all.Events {
			again = again || e.Kind == app.EventMember || e.Kind == app.EventCertificate
		}
		if again {
			s.apps.recheck()
		}
		p.After, p.WaitS = all.Next, MaxEventWait.Seconds()
	}
}
