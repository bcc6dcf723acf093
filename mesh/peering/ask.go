package peering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// What a gateway asks of others: of those of peered clusters as a visitor, of those of its own cluster as a member.

// placeOf is a cluster's gates, with one of them first.
func placeOf(cluster key.Public, gates []member.Contact, first key.Public) envelope.Place {
	at := envelope.Place{Cluster: cluster}
	for _, g := range gates {
		if g.Key == first {
			at.Contacts = append(at.Contacts, g)
		}
	}
	for _, g := range gates {
		if g.Key != first {
			at.Contacts = append(at.Contacts, g)
		}
	}
	return at
}

// converse sends one frame and reads the answer.
func converse(ctx context.Context, s *app.Stream, ask []byte) (status byte, answer []byte, err error) {
	defer s.Close()
	defer context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })()
	_ = s.SetDeadline(time.Now().Add(callTimeout))
	if err := writeFrame(s, ask); err != nil {
		return 0, nil, err
	}
	answer, err = readFrame(s)
	if errors.Is(err, io.EOF) || err == nil && len(answer) == 0 {
		err = signal.Errorf(signal.ErrTimeout, "the gateway gave no answer")
	}
	if err != nil {
		return 0, nil, err
	}
	if answer[0] == statusRefused {
		return 0, nil, signal.Errorf(signal.ErrRefused, "the other cluster's gateway: %s", printable(answer[1:]))
	}
	return answer[0], answer[1:], nil
}

// printable makes text of what another says.
func printable(b []byte) string {
	b = append([]byte(nil), b[:min(len(b), 200)]...)
	for i, c := range b {
		if c < ' ' || c >= 127 {
			b[i] = '?'
		}
	}
	return string(b)
}

// call asks a gateway in another network; ask is made for the key that the visitor has.
func (g *Gateway) call(ctx context.Context, at envelope.Place, node key.Public, op byte, ask func(self key.Public) []byte) (status byte, answer []byte, end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var self key.Public
	s, release, end, err := g.c.Visits.dial(ctx, at, node, Service, func(k key.Public) []byte {
		self = k
		return []byte{protocol, op}
	})
	if err != nil {
		return 0, nil, nil, err
	}
	defer release()
	status, answer, err = converse(ctx, s, ask(self))
	return status, answer, end, err
}

// sayHello shows a gate who our visitor is, brings it what our cluster revoked, and listens to its news from then on.
func (t *tie) sayHello(ctx context.Context, gate key.Public) error {
	g := t.g
	g.mu.Lock()
	own := g.own
	g.mu.Unlock()
	if own.cert == nil {
		return signal.Errorf(signal.ErrRefused, "the node of this box has no certificate to show to the other cluster")
	}
	at := placeOf(t.other.Cluster, t.other.Gates, gate)
	now := g.now()
	status, answer, end, err := g.call(ctx, at, gate, opHello, func(self key.Public) []byte {
		p := Pass{Cluster: own.cluster, Visitor: self, Host: gate, Issued: now, NotAfter: now + int64(passLife/time.Second)}
		return appendBytes(appendBytes(appendBytes(nil, p.Sign(g.c.Node)), own.list), own.cert)
	})
	if err != nil {
		return err
	}
	t.visiting(gate, end)
	if status == statusOver {
		t.work.Go(func() { _ = g.put(context.WithoutCancel(ctx), answer, false) }) // it ends this tie
		return signal.Errorf(signal.ErrRefused, "the other side has ended the peering")
	}
	if len(own.revoked) > 0 {
		if _, _, _, err := g.call(ctx, at, gate, opPut, func(key.Public) []byte { return putOf(nil, own.revoked) }); err != nil {
			g.c.Log.Info("revocations not told", "cluster", t.alias, "err", err)
		}
	}
	s, release, _, err := g.c.Visits.dial(ctx, at, gate, Service, func(key.Public) []byte { return []byte{protocol, opWatch} })
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	release() // it does not keep the visit up
	t.work.Go(func() { t.watch(s) })
	return nil
}

// watch takes the other side's news until the visit ends.
func (t *tie) watch(s *app.Stream) {
	defer s.Close()
	defer context.AfterFunc(t.ctx, func() { s.Close() })()
	for {
		raw, err := readFrame(s)
		if err != nil {
			return
		}
		t.work.Go(func() { _ = t.g.put(context.WithoutCancel(t.ctx), raw, false) }) // it may be the end of this tie
	}
}

// putOf is the request of opPut.
func putOf(records, statements [][]byte) (b []byte) {
	for _, raw := range records {
		if len(b)+len(raw)+2 < maxFrame {
			b = appendBytes(b, raw)
		}
	}
	for _, raw := range statements {
		if len(b)+len(raw)+3 < maxFrame {
			b = appendBytes(b, append([]byte{putStatement}, raw...))
		}
	}
	return b
}
