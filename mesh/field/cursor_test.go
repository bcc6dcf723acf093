package field

import (
	"bytes"
	"testing"
)

func TestFieldsInOrder(t *testing.T) {
	c := Cursor{B: []byte{1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 'x'}}
	if a, b, d, e, f := c.U8(), c.U16(), c.U32(), c.U64(), c.Unix(); a != 1 || b != 2 || d != 3 || e != 4 || f != 5 {
		t.Errorf("%d %d %d %d %d", a, b, d, e, f)
	}
	if c.Zero(2); c.Bad || c.Done() {
		t.Errorf("bad %v, done %v before the last byte", c.Bad, c.Done())
	}
	if v := c.Take(1); string(v) != "x" || !c.Done() {
		t.Errorf("%q, done %v", v, c.Done())
	}
}

func TestShortStaysBad(t *testing.T) {
	c := Cursor{B: []byte{7, 7, 7}}
	if v := c.U32(); v != 0 || !c.Bad {
		t.Errorf("a number of four bytes from three: %d, bad %v", v, c.Bad)
	}
	if v := c.U8(); v != 0 || c.Done() {
		t.Errorf("after it: %d, done %v", v, c.Done())
	}
}

func TestTakeIsBounded(t *testing.T) {
	for _, n := range []int{-1, 65, 1 << 30} {
		c := Cursor{B: make([]byte, 8)}
		if v := c.Take(n); len(v) != 64 || !c.Bad {
			t.Errorf("Take(%d): %d bytes, bad %v", n, len(v), c.Bad)
		}
	}
	b := []byte{1, 2}
	c := Cursor{B: b}
	if _ = append(c.Take(1), 9); !bytes.Equal(b, []byte{1, 2}) {
		t.Errorf("append to what was taken wrote to what follows: %v", b)
	}
	d := Cursor{}
	d.Take(4)[0] = 1
	if v := d.Take(4); v[0] != 0 {
		t.Error("what a caller wrote to a missing field is in the next one")
	}
}

func TestUnixAndZeroRefuse(t *testing.T) {
	late := Cursor{B: []byte{255, 255, 255, 255, 255, 255, 255, 255}}
	if v := late.Unix(); v != 0 || !late.Bad {
		t.Errorf("a time past the year 9999: %d, bad %v", v, late.Bad)
	}
	one := Cursor{B: []byte{0, 1}}
	if one.Zero(2); !one.Bad {
		t.Error("a byte that is not zero was taken for one")
	}
}
