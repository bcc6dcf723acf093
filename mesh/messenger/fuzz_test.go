package messenger

import (
	"bytes"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

func FuzzParseReceipt(f *testing.F) {
	a := answer{epoch: 7, stream: 1, upto: 9}
	a.set(12)
	a.set(40)
	f.Add(appendReceipt(3, []answer{a, {epoch: 1, upto: 1, conflict: true}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		card, all, err := parseReceipt(b)
		if err != nil {
			return
		}
		for i := range all {
			if len(all[i].beyond) > maxBitmap || all[i].highest() < all[i].upto {
				t.Fatalf("%+v", all[i])
			}
		}
		card2, again, err := parseReceipt(appendReceipt(card, all))
		if err != nil || card2 != card || len(again) != len(all) {
			t.Fatalf("again: %v", err)
		}
	})
}

func FuzzParseMarks(f *testing.F) {
	f.Add(appendMarks(receiptRefused, "why", []MessageID{{1}, {2}}))
	f.Add(appendMarks(receiptRead, "", []MessageID{{1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if op, reason, ids, err := parseMarks(b); err == nil && !bytes.Equal(appendMarks(op, reason, ids), b) && len(b) < 200 {
			if _, _, again, err := parseMarks(appendMarks(op, reason, ids)); err != nil || len(again) != len(ids) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzParseHello(f *testing.F) {
	h := hello{account: key.Public{1}, device: key.Public{2}, nonce: [16]byte{3}, held: map[key.Public]uint64{{4}: 5}}
	f.Add(h.append(nil)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHello(b)
		if err != nil {
			return
		}
		if again, err := parseHello(h.append(nil)[1:]); err != nil || again.device != h.device || len(again.held) != len(h.held) {
			t.Fatal(err)
		}
	})
}

func FuzzParseCards(f *testing.F) {
	f.Add(cardsFrame([][]byte{{1, 2, 3}, {4}})[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if all, err := parseCards(b); err == nil && len(all) < maxHeld && !bytes.Equal(cardsFrame(all)[1:], b) {
			t.Fatalf("%q", all)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	m := record{id: MessageID{1}, account: 2, kind: envelope.KindText, time: 3, state: Queued, reason: "r", targets: []target{{1, Queued}}, body: []byte("b")}
	f.Add(m.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseRecord(1, b)
		if err != nil {
			return
		}
		if _, err := parseRecord(1, m.append(nil)); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseQueued(f *testing.F) {
	f.Add(queueItem(&envelope.Item{Kind: 1, Time: 2, Expires: 3, Body: []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if it, err := parseQueued(b); err == nil && !bytes.Equal(queueItem(&it), b) {
			t.Fatal("another")
		}
	})
}

func FuzzParseKept(f *testing.F) {
	k := kept{by: key.Public{1}, stranger: true, until: 5, raw: []byte("x")}
	f.Add(k.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k := parseKept(b); k != nil && len(k.append(nil)) != len(b) {
			t.Fatal("another length")
		}
	})
}

// FuzzItem gives the core items of a confirmed contact with any body: nothing may panic, and what is kept stays bounded.
func FuzzItem(f *testing.F) {
	for k := range byte(17) {
		f.Add(k, uint64(1), []byte{1, 2, 3})
	}
	f.Add(byte(envelope.KindFile), uint64(1), append(append([]byte{1}, make([]byte, 16+8+32)...), "name"...))
	f.Add(byte(envelope.KindFileWord), uint64(1), append([]byte{fileWant}, make([]byte, 24)...))
	f.Add(byte(envelope.KindChunk), uint64(1), make([]byte, 30))
	f.Add(byte(envelope.KindReceipt), uint64(2), appendMarks(receiptRead, "", []MessageID{{1}}))
	s := newSim(f, 1)
	a, b := s.node("a", nil), s.node("b", nil)
	s.befriend(a, b)
	s.run(10*time.Second, nil)
	from := b.c
	f.Fuzz(func(t *testing.T, kind byte, seq uint64, body []byte) {
		if len(body) > envelope.MaxBody {
			return
		}
		for stream := range uint8(3) {
			x := &envelope.Bundle{Account: from.self, Device: from.self, To: a.c.self, Epoch: 1, Stream: stream, Floor: 1}
			x.Items = []envelope.Item{{Kind: envelope.Kind(kind), Seq: seq, Time: 5, Body: body}}
			a.call(func(c *core) { c.take(x, 0, nil) })
		}
		a.commit(a.life)
		if n := a.cfg.Store.Live(); n > 2*a.cfg.Quota {
			t.Fatalf("%d bytes", n)
		}
	})
}

// FuzzFrame gives the core frames of a device that proved its key.
func FuzzFrame(f *testing.F) {
	f.Add(byte(opHello), []byte{1})
	f.Add(byte(opCards), cardsFrame([][]byte{{1, 2, 3}})[1:])
	f.Add(byte(opTaken), []byte{0, 0, 0, 1, 0})
	f.Add(byte(opCustody), make([]byte, 200))
	f.Add(byte(opReceipt), appendReceipt(1, []answer{{epoch: 1, upto: 1 << 61}}))
	f.Add(byte(opSeek), make([]byte, 32))
	s := newSim(f, 2)
	a, b := s.node("a", nil), s.node("b", nil)
	s.befriend(a, b)
	a.send(b, "0")
	s.run(10*time.Second, nil)
	f.Fuzz(func(_ *testing.T, op byte, body []byte) {
		if op == opDeposit {
			return // those are opened first
		}
		a.call(func(c *core) {
			l := c.linkUp(false, nil, key.Public{})
			l.theirs, l.peer = &hello{device: b.key.Public(), held: map[key.Public]uint64{}}, b.key.Public()
			c.met(l)
			c.frame(l, append([]byte{op}, body...))
			c.linkDown(l)
		})
		a.commit(a.life)
	})
}
