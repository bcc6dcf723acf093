package socks

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestDatagram(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		d    Datagram
		wire string
	}{
		{"ipv4", Datagram{Addr: netip.MustParseAddr("1.2.3.4"), Port: 53, Payload: []byte("x")}, "\x01\x01\x02\x03\x04\x00\x35x"},
		{"mapped ipv4", Datagram{Addr: netip.MustParseAddr("::ffff:1.2.3.4"), Port: 53}, "\x01\x01\x02\x03\x04\x00\x35"},
		{"ipv6", Datagram{Addr: netip.MustParseAddr("2001:db8::1"), Port: 443, Payload: []byte("yz")}, "\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbbyz"},
		{"name", Datagram{Name: "a.example", Port: 53, Payload: []byte("q")}, "\x03\x09a.example\x00\x35q"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(tt.d.Append(nil)); got != tt.wire {
				t.Errorf("encoded %q, want %q", got, tt.wire)
			}
			d, err := ParseUDP([]byte("\x00\x00\x00" + tt.wire))
			if err != nil || d.Addr != tt.d.Addr.Unmap() || d.Name != tt.d.Name || d.Port != tt.d.Port || !bytes.Equal(d.Payload, tt.d.Payload) {
				t.Errorf("decoded %+v, %v; want %+v", d, err, tt.d)
			}
		})
	}
}

func TestDatagramMalformed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, wire string
		want       error
	}{
		{"nothing", "", ErrAddress},
		{"reserved bytes only", "\x00\x00\x00", ErrAddress},
		{"fragment", "\x00\x00\x01\x01\x01\x02\x03\x04\x00\x35x", ErrFragment},
		{"last fragment", "\x00\x00\x81\x01\x01\x02\x03\x04\x00\x35x", ErrFragment},
		{"address type", "\x00\x00\x00\x02\x01\x02\x03\x04\x00\x35x", ErrAddress},
		{"ipv4 cut", "\x00\x00\x00\x01\x01\x02\x03\x04\x00", ErrAddress},
		{"ipv6 cut", "\x00\x00\x00\x04" + strings.Repeat("\x01", 17), ErrAddress},
		{"name without length", "\x00\x00\x00\x03", ErrAddress},
		{"name cut", "\x00\x00\x00\x03\x05abc\x00\x35", ErrAddress},
		{"empty name", "\x00\x00\x00\x03\x00\x00\x35", ErrAddress},
		{"name with a space", "\x00\x00\x00\x03\x03a b\x00\x35", ErrAddress},
		{"port 0", "\x00\x00\x00\x01\x01\x02\x03\x04\x00\x00x", ErrAddress},
	}
	for _, tt := range tests {
		if d, err := ParseUDP([]byte(tt.wire)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %+v, %v; want %v", tt.name, d, err, tt.want)
		}
	}
}

func TestDatagramAllocations(t *testing.T) {
	in := []byte("\x00\x00\x00\x01\x01\x02\x03\x04\x00\x35payload")
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		d, err := ParseUDP(in)
		if err != nil {
			t.Fatal(err)
		}
		buf = d.Append(buf[:0])
	}); n != 0 {
		t.Errorf("%v allocations a packet, want none", n)
	}
}

func FuzzParseUDP(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x01\x02\x03\x04\x00\x35x"))
	f.Add([]byte("\x00\x00\x00\x03\x09a.example\x00\x35q"))
	f.Add([]byte("\x00\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbbyz"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseUDP(b)
		if err != nil {
			return
		}
		if err := CheckTarget(d.Host(), d.Port); err != nil {
			t.Fatalf("accepted %+v: %v", d, err)
		}
	})
}

func FuzzParseDatagram(f *testing.F) {
	f.Add([]byte("\x01\x01\x02\x03\x04\x00\x35x"))
	f.Add([]byte("\x03\x09a.example\x00\x35q"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDatagram(b)
		if err != nil {
			return
		}
		again, err := ParseDatagram(d.Append(nil))
		if err != nil || again.Addr != d.Addr || again.Name != d.Name || again.Port != d.Port || !bytes.Equal(again.Payload, d.Payload) {
			t.Fatalf("%+v came back as %+v, %v", d, again, err)
		}
	})
}
