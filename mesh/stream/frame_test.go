package stream

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"skywire/signal"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	for _, o := range []Open{
		{Service: "vpn"},
		{Service: "socks", Header: []byte("example.org:443")},
		{Service: strings.Repeat("s", maxService), Header: bytes.Repeat([]byte{0xff}, maxHeader)},
	} {
		b, err := o.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := readFrame(bytes.NewReader(append(b, "behind"...)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseOpen(body)
		if err != nil || got.Service != o.Service || !bytes.Equal(got.Header, o.Header) {
			t.Errorf("got %v, %v, want %v", got, err, o)
		}
	}
	for _, a := range []Answer{
		{},
		{Reply: bytes.Repeat([]byte{1}, maxHeader)},
		{Refusal: &signal.Error{Code: -32002, Name: "refused", Message: "not today"}},
		{Refusal: &signal.Error{}},
	} {
		b, err := a.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := readFrame(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseAnswer(body)
		if err != nil || !reflect.DeepEqual(got.Refusal, a.Refusal) || !bytes.Equal(got.Reply, a.Reply) {
			t.Errorf("got %v, %v, want %v", got, err, a)
		}
	}
	for _, o := range []Open{{}, {Service: strings.Repeat("s", maxService+1)}, {Service: "s", Header: make([]byte, maxHeader+1)}} {
		if _, err := o.Append(nil); !errors.Is(err, ErrHeader) {
			t.Errorf("service of %d, header of %d bytes: %v", len(o.Service), len(o.Header), err)
		}
	}
	long := Answer{Refusal: &signal.Error{Name: strings.Repeat("n", 300), Message: strings.Repeat("m", 1<<20)}}
	b, err := long.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAnswer(b[2:]); err != nil {
		t.Errorf("a refusal with long texts: %v", err)
	}
}

func FuzzParseOpen(f *testing.F) {
	for _, o := range []Open{{Service: "vpn"}, {Service: "socks", Header: []byte("example.org:443")}} {
		b, _ := o.Append(nil)
		f.Add(b[2:])
	}
	f.Add([]byte{})
	f.Add([]byte{64, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOpen(b)
		if err != nil {
			return
		}
		again, err := o.Append(nil)
		if err != nil || !bytes.Equal(again[2:], b) {
			t.Errorf("%x became %x, %v", b, again, err)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	for _, a := range []Answer{{Reply: []byte("ok")}, {Refusal: signal.ErrRefused}} {
		b, _ := a.Append(nil)
		f.Add(b[2:])
	}
	f.Add([]byte{1, 0, 0, 0, 0, 9, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAnswer(b)
		if err != nil {
			return
		}
		again, err := a.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) < len(b) && a.Refusal == nil {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func TestPieces(t *testing.T) {
	t.Parallel()
	packet := make([]byte, maxPacket)
	for i := range packet {
		packet[i] = byte(i * 7)
	}
	for _, size := range []int{0, 1, 256, 300, 484, 700, 1399, maxPacket + 10} {
		var pieces [][]byte
		for offset := 0; offset < len(packet); {
			var b []byte
			b, offset = appendPiece(nil, packet, 9, offset, size)
			pieces = append(pieces, b)
		}
		var j joiner
		var got []byte
		for i := len(pieces) - 1; i >= 0; i-- { // out of order
			j.add(pieces[i], func(p []byte) { got = append(got, p...) })
		}
		if !bytes.Equal(got, packet) {
			t.Errorf("pieces of %d: got %d bytes", size, len(got))
		}
	}
}

func FuzzPieces(f *testing.F) {
	b, _ := appendPiece(nil, make([]byte, 1200), 1, 0, 700)
	f.Add(b, b)
	f.Add([]byte{0x81, 1, 0xff, 0xff, 1}, []byte{0x80})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var j joiner
		for range 3 {
			for _, p := range [][]byte{a, b} {
				if len(p) > 0 {
					j.add(p, func(packet []byte) {
						if len(packet) > maxPacket {
							t.Errorf("packet of %d bytes", len(packet))
						}
					})
				}
			}
		}
	})
}

// TestRefusalObeysNoTerminal: what a far node says of why it refuses is shown to people.
func TestRefusalObeysNoTerminal(t *testing.T) {
	t.Parallel()
	frame, err := Answer{Refusal: &signal.Error{Name: "re\x1bfused", Message: "no\x1b[2J\x07\r\nway\u202e\u009b \xff ü"}}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAnswer(frame[2:])
	if err != nil || a.Refusal == nil || a.Refusal.Name != "re?fused" || a.Refusal.Message != "no?[2J???way?? ? ü" {
		t.Errorf("got %+v, %v", a.Refusal, err)
	}
}
