package route

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// The item measures says of each link what the link's own item has no room for, in the order of the links. It stands only if there is
// something to say, and is versioned: another version's is an unknown item here, and passed on.
//
//	version 1 │ links × { jitter u16, in 32 µs │ mtu u16 │ flaps u8, in quarters │ carrier 3 bits, up 5 bits, see UpSteps }
const (
	itemMeasures    = 7
	measuresVersion = 1
	measureLen      = 6
	upBits          = 5
	jitterUnit      = 32 * time.Microsecond
	flapUnit        = 0.25
)

// fitMeasures rounds to what the item can say.
func (l *Link) fitMeasures() {
	l.Jitter = min(max(l.Jitter, 0)/jitterUnit, math.MaxUint16) * jitterUnit
	if !(l.Flaps >= 0) { // NaN too
		l.Flaps = 0
	}
	l.Flaps = math.Floor(min(l.Flaps/flapUnit, math.MaxUint8)) * flapUnit
	l.Up, l.Carrier = min(l.Up, maxUp), min(l.Carrier, maxCarrier)
	l.MTU = min(max(l.MTU, 0), math.MaxUint16)
}

// measured tells whether there is anything for the item to say.
func (r *Record) measured() bool {
	for _, l := range r.Links {
		if l.Jitter != 0 || l.MTU != 0 || l.Flaps != 0 || l.Up != 0 || l.Carrier != 0 {
			return true
		}
	}
	return false
}

func (r *Record) measuresLen() int {
	if !r.measured() {
		return 0
	}
	return 1 + measureLen*len(r.Links)
}

func (r *Record) appendMeasures(b []byte) []byte {
	if !r.measured() {
		return b
	}
	b = append(appendItem(b, itemMeasures, r.measuresLen()), measuresVersion)
	for _, l := range r.Links {
		b = binary.BigEndian.AppendUint16(b, uint16(l.Jitter/jitterUnit))
		b = binary.BigEndian.AppendUint16(b, uint16(l.MTU))
		b = append(b, uint8(l.Flaps/flapUnit), l.Carrier<<upBits|l.Up)
	}
	return b
}

// parseMeasures reads the value of the item into the links before it.
func (r *Record) parseMeasures(v []byte) error {
	if len(v) != 1+measureLen*len(r.Links) || r.measured() {
		return fmt.Errorf("%w: item %d", ErrFormat, itemMeasures)
	}
	for i, v := 0, v[1:]; len(v) > 0; i, v = i+1, v[measureLen:] {
		l := &r.Links[i]
		l.Jitter = time.Duration(binary.BigEndian.Uint16(v)) * jitterUnit
		l.MTU = int(binary.BigEndian.Uint16(v[2:]))
		l.Flaps, l.Carrier, l.Up = float64(v[4])*flapUnit, v[5]>>upBits, v[5]&(1<<upBits-1)
	}
	return nil
}

// ours tells whether an item is the one of this version.
func (i Item) ours() bool {
	return i.Type == itemMeasures && len(i.Value) > 0 && i.Value[0] == measuresVersion
}
