package peering

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// What a gateway answers. The header of a stream is version 1 │ op 1 │ and for opDial the name of an export {length 1, text}
// and the header of the stream to the service. Of the other ops the stream carries one frame each way, of opWatch one after
// the other; a frame is length 4 │ bytes, an answer begins with a status: 0 done, 1 pending, 2 refused and a text, 3 over and the end.
const (
	protocol = 1

	opHello  = 1 // pass, admin list, certificate
	opPut    = 2 // records, ends, statements of the own lists
	opLook   = 3 // invite id, proof: the number that the next record needs, and the admin list
	opAccept = 4 // invite id, proof, a record that the other side signed: the record that both did
	opGet    = 5 // of own members: all that is held
	opWatch  = 6 // of visitors that said hello: records and ends of their pair, as they come
	opDial   = 7

	statusDone    = 0
	statusPending = 1
	statusRefused = 2
	statusOver    = 3 // of opHello: the end of the peering follows, for a box that missed it or was rolled back

	maxFrame    = 64 << 10
	callTimeout = 20 * time.Second
	maxCalls    = 16
	callRate    = 10.0 // a second, of who is not known
	callBurst   = 40.0
	askDial     = 15 * time.Second
)

const (
	// nameUnknown is the error of a visitor that has not said hello, or to a gateway that forgot it.
	nameUnknown = "unknown_visitor"
	// nameNotReached tells a service that does not answer from a gateway that is not reached.
	nameNotReached = "service_not_reached"
)

func writeFrame(w io.Writer, b []byte) error {
	if len(b) > maxFrame {
		return ErrFull
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > maxFrame {
		return nil, fmt.Errorf("frame of %d bytes: %w", size, ErrFormat)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}

// accept takes streams until ctx ends. A call that waits does not keep others waiting.
func (g *Gateway) accept(ctx context.Context, home *app.Client) {
	var calls atomic.Int32
	for ctx.Err() == nil {
		in, err := home.Accept(ctx, Service)
		if err != nil {
			if errors.Is(err, app.ErrClosed) {
				return
			}
			wait(ctx, time.Second)
			continue
		}
		if len(in.Header) < 2 || in.Header[0] != protocol || in.Packets && in.Header[1] != opDial {
			_ = in.Refuse("unsupported", "a gateway of peered clusters speaks version "+strconv.Itoa(protocol))
			continue
		}
		switch op := in.Header[1]; op {
		case opDial:
			go g.serveDial(ctx, home, in)
		case opWatch:
			go g.serveWatch(ctx, in)
		default:
			if calls.Add(1) > maxCalls {
				calls.Add(-1)
				_ = in.Refuse("busy", "too many calls")
				continue
			}
			go func() {
				defer calls.Add(-1)
				g.serveCall(ctx, home, in, op)
			}()
		}
	}
}

// inside tells whether a peer is a member of our own cluster.
func inside(ctx context.Context, home *app.Client, k key.Public) bool {
	who, err := home.Whois(ctx, k.String())
	return err == nil && who.Member
}

// mayCall bounds what strangers can make the gateway compute.
func (g *Gateway) mayCall(k key.Public) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.guests[k] != nil {
		return true
	}
	now := time.Now()
	g.tokens = min(callBurst, g.tokens+callRate*now.Sub(g.filled).Seconds())
	g.filled = now
	if g.tokens < 1 {
		return false
	}
	g.tokens--
	return true
}

func (g *Gateway) serveCall(ctx context.Context, home *app.Client, in *app.Incoming, op byte) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !g.mayCall(in.Peer) {
		_ = in.Refuse("busy", "too many calls")
		return
	}
	conn, err := in.Accept(nil)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callTimeout))
	ask, err := readFrame(conn)
	if err != nil {
		return
	}
	enforce := func() {}
	status, answer, err := g.answer(ctx, home, in.Peer, op, ask, &enforce)
	defer func() { enforce() }()
	if err != nil {
		g.c.Log.Info("call of peering refused", "peer", in.Peer, "type", op, "err", err)
		status, answer = statusRefused, []byte(err.Error())
	}
	_ = writeFrame(conn, append([]byte{status}, answer[:min(len(answer), maxFrame-1)]...))
	_, _ = conn.Read(make([]byte, 1)) // until it has been read
}

func (g *Gateway) answer(ctx context.Context, home *app.Client, peer key.Public, op byte, ask []byte, enforce *func()) (status byte, answer []byte, err error) {
	book, err := g.theBook()
	if err != nil {
		return 0, nil, err
	}
	c := &cursor{b: ask}
	switch op {
	case opHello:
		pass, list, cert := c.bytes(passLen), c.bytes(member.MaxStatement), c.bytes(member.MaxStatement)
		if err := c.end("hello"); err != nil {
			return 0, nil, err
		}
		if over := g.overOf(book, pass); over != nil {
			return statusOver, over, nil
		}
		return 0, nil, g.hello(ctx, home, peer, pass, list, cert)
	case opPut:
		return 0, nil, g.answerPut(ctx, home, peer, c)
	case opGet:
		if !inside(ctx, home, peer) {
			return 0, nil, signal.ErrRefused
		}
		for _, raw := range book.Raws() {
			if len(answer)+len(raw)+2 < maxFrame {
				answer = appendBytes(answer, raw)
			}
		}
		return 0, answer, nil
	case opLook, opAccept:
		id, proven := InviteID(c.take(8)), [32]byte(c.take(32))
		m, err := book.offer(id, proven, peer, home.Self().Key, g.now())
		if err != nil || c.bad {
			return 0, nil, ErrOver
		}
		if op == opLook {
			return g.answerLook(book, c)
		}
		raw := c.bytes(MaxRecord)
		if err := c.end("accept"); err != nil {
			return 0, nil, err
		}
		return g.answerAccept(ctx, book, m, raw, enforce)
	}
	return 0, nil, signal.Errorf(signal.ErrUnsupported, "op %d", op)
}

// overOf is the end of the peering with the cluster of a visitor, nil if none ended.
func (g *Gateway) overOf(book *Book, rawPass []byte) []byte {
	pass, err := ParsePass(rawPass)
	if err != nil {
		return nil
	}
	p, ok := book.With(pass.Cluster)
	if !ok || p.Ended == nil || p.InForce(0) {
		return nil
	}
	return book.rawsOf(p.Pair)[0]
}

// answerPut takes what proves itself: records and ends of anybody, statements of clusters that we are peered with.
func (g *Gateway) answerPut(ctx context.Context, home *app.Client, peer key.Public, c *cursor) error {
	mine := inside(ctx, home, peer)
	g.mu.Lock()
	var of key.Public
	if v := g.guests[peer]; v != nil {
		of = v.cluster
	}
	g.mu.Unlock()
	var first error
	for n := 0; len(c.b) > 0 && !c.bad && n < 2*maxPairs; n++ {
		raw := c.bytes(MaxCarried)
		var err error
		if len(raw) > 1 && raw[0] == putStatement {
			err = g.putStatement(ctx, of, raw[1:])
		} else {
			err = g.put(ctx, raw, mine)
		}
		if first == nil {
			first = err
		}
	}
	if err := c.end("put"); err != nil {
		return err
	}
	return first
}

// putStatement marks a statement of a cluster's own lists among records.
const putStatement = 255

// putStatement takes a list or a revocation of a peered cluster: who was revoked there is shut out here, too.
func (g *Gateway) putStatement(ctx context.Context, of key.Public, raw []byte) error {
	if len(raw) == 0 || member.Kind(raw[0]) > member.KindRevocation {
		return signal.ErrRefused
	}
	book, err := g.theBook()
	if err != nil {
		return err
	}
	news, err := book.Learn(of, raw)
	if news {
		g.shutOut(ctx, book, of)
	}
	return err
}

// shutOut ends the visits of nodes that their own cluster does not call members any more.
func (g *Gateway) shutOut(ctx context.Context, book *Book, of key.Public) {
	g.mu.Lock()
	home := g.home
	var out []key.Public
	for k, v := range g.guests {
		if v.cluster != of {
			continue
		}
		if m, err := book.Member(of, v.node, nil); err == nil && m.Rights != member.Member {
			out = append(out, k)
			delete(g.guests, k)
		}
	}
	g.mu.Unlock()
	for _, k := range out {
		g.vouch(ctx, home, k, 0)
	}
}

// hello takes a visitor in: its node is a member of a cluster that we are peered with, and says that the visitor is its own.
func (g *Gateway) hello(ctx context.Context, home *app.Client, visitor key.Public, rawPass, list, cert []byte) error {
	pass, err := ParsePass(rawPass)
	if err != nil {
		return err
	}
	if pass.Visitor != visitor || pass.Host != home.Self().Key {
		return fmt.Errorf("pass of another visitor, or for another host: %w", ErrUntrusted)
	}
	p, ok := g.with(pass.Cluster)
	if !ok {
		return signal.Errorf(signal.ErrRefused, "no peering with cluster %s is in force", pass.Cluster.Short())
	}
	book, err := g.theBook()
	if err != nil {
		return err
	}
	if news, err := book.Learn(pass.Cluster, list); err != nil {
		return err
	} else if news {
		g.shutOut(ctx, book, pass.Cluster)
	}
	m, err := book.Member(pass.Cluster, pass.Node, cert)
	if err != nil {
		return err
	}
	if err := g.holds(&p); err != nil {
		return err // by the list that was shown just now
	}
	now := g.now()
	g.mu.Lock()
	err = g.takeInLocked(&p, pass, m, now)
	g.mu.Unlock()
	if err != nil {
		return err
	}
	g.vouch(ctx, home, visitor, vouchFor)
	g.c.Log.Info("visitor of a peered cluster", "peer", visitor, "cluster", p.Alias, "at", pass.Node)
	return nil
}

func (g *Gateway) takeInLocked(p *Peering, pass *Pass, m member.Membership, now int64) error {
	if m.Rights != member.Member {
		return fmt.Errorf("%s: %w: %s", pass.Node.Short(), ErrUntrusted, m.Why)
	}
	if pass.NotAfter <= now || pass.NotAfter-pass.Issued > int64(2*passLife/time.Second) {
		return fmt.Errorf("pass: %w", ErrOver)
	}
	nodes := map[key.Public]bool{}
	for _, v := range g.guests {
		if v.pair == p.Pair {
			nodes[v.node] = true
		}
	}
	most := int(p.Gives().Nodes)
	if g.guests[pass.Visitor] == nil && (len(g.guests) >= maxGuests || most > 0 && !nodes[pass.Node] && len(nodes) >= most) {
		return signal.Errorf(signal.ErrBusy, "as many visitors as there may be are here")
	}
	v := g.guests[pass.Visitor]
	if v == nil {
		v = &guest{watch: make(chan []byte, 4)}
		g.guests[pass.Visitor] = v
	}
	v.cluster, v.node, v.pair, v.until, v.used = pass.Cluster, pass.Node, p.Pair, pass.NotAfter, time.Now()
	return nil
}

// answerLook tells what the next record of a pair needs.
func (g *Gateway) answerLook(book *Book, c *cursor) (byte, []byte, error) {
	other := c.key(false)
	if err := c.end("look"); err != nil {
		return 0, nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b := binary.BigEndian.AppendUint64(nil, book.Floor(PairOf(g.own.cluster, other)))
	return 0, appendBytes(b, g.own.list), nil
}

// answerAccept takes the other side's word: the record is signed here, or waits for a person.
func (g *Gateway) answerAccept(ctx context.Context, book *Book, m *made, raw []byte, enforce *func()) (byte, []byte, error) {
	r, err := ParseRecord(raw)
	if err != nil {
		return 0, nil, err
	}
	if err := book.fits(m, r); err != nil {
		return 0, nil, err
	}
	_, other, _ := r.Of(book.own)
	if m.Done {
		if p, ok := book.With(other.Cluster); ok && p.Record != nil && p.Record.Seq == r.Seq && g.holds(&p) == nil {
			return statusDone, p.Record.Append(nil), nil // the answer was lost
		}
		return 0, nil, ErrOver
	}
	if err := book.hold(m.invite.ID, raw); err != nil {
		return 0, nil, err
	}
	if m.Confirm {
		return statusPending, nil, nil
	}
	signed, after, err := g.countersign(context.WithoutCancel(ctx), book, m.invite.ID, r)
	if err != nil {
		return 0, nil, err
	}
	*enforce = after // the visitor who waits for the answer may be one to be cut
	return statusDone, signed, nil
}

// countersign adds our administrator's name, and puts the record into force.
func (g *Gateway) countersign(ctx context.Context, book *Book, id InviteID, r *Record) (raw []byte, enforce func(), err error) {
	admin, err := g.c.Admin()
	if err != nil {
		return nil, nil, err
	}
	if err := r.Sign(admin); err != nil {
		return nil, nil, err
	}
	raw = r.Append(nil)
	if enforce, err = g.keep(ctx, raw, true); err != nil {
		return nil, nil, err
	}
	return raw, enforce, book.done(id)
}

// serveWatch tells a visitor news of its peering, so that both ends of a cut know at once.
func (g *Gateway) serveWatch(ctx context.Context, in *app.Incoming) {
	g.mu.Lock()
	v := g.guests[in.Peer]
	g.mu.Unlock()
	if v == nil {
		_ = in.Refuse(nameUnknown, "say hello first")
		return
	}
	conn, err := in.Accept(nil)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	gone := make(chan struct{})
	go func() { // nothing is said on it: it ends with the visitor
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
	}()
	for {
		select {
		case <-gone:
			return
		case raw := <-v.watch:
			_ = conn.SetWriteDeadline(time.Now().Add(stepTimeout))
			if writeFrame(conn, raw) != nil {
				return
			}
		}
	}
}
