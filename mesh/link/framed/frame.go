package framed

import "encoding/binary"

// MaxFrame is the longest frame: the largest datagram that links look for, rounded up. Text of HTTP is above it, read as a
// length.
const MaxFrame = 9216

// lengthLen is the length before each frame.
const lengthLen = 2

// Append adds a frame with its length to dst.
func Append(dst, frame []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(frame)))
	return append(dst, frame...)
}

// Parse returns the first frame of b and how many bytes it takes with its length; n is 0 while b does not hold all of it.
// The frame is a part of b.
func Parse(b []byte) (frame []byte, n int, err error) {
	if len(b) < lengthLen {
		return nil, 0, nil
	}
	size := int(binary.BigEndian.Uint16(b))
	if size == 0 || size > MaxFrame {
		return nil, 0, ErrFrame
	}
	if len(b) < lengthLen+size {
		return nil, 0, nil
	}
	return b[lengthLen : lengthLen+size], lengthLen + size, nil
}

// Train is a run of frames back to back, each Seg bytes long, the last maybe shorter.
type Train struct {
	B   []byte
	Seg int
}

// maxTrain bounds a train as UDP's are, see mesh/forward.
const (
	maxTrain    = 65000
	maxSegments = 64
)

// Trains takes the whole frames at the head of b, moves them together in place and adds the trains that they make to dst.
// n is how many bytes of b they were, with their lengths.
func Trains(dst []Train, b []byte) (all []Train, n int, err error) {
	all = dst
	at := 0    // where the next frame is moved to
	first := 0 // where the train under way begins
	seg := 0
	for {
		f, took, err := Parse(b[n:])
		if err != nil || took == 0 {
			return closeTrain(all, b[first:at], seg), n, err
		}
		n += took
		size := at - first
		if size > 0 && (len(f) > seg || size%seg != 0 || size+len(f) > maxTrain || size >= maxSegments*seg) {
			all, first = closeTrain(all, b[first:at], seg), at
			size = 0
		}
		if size == 0 {
			seg = len(f)
		}
		at += copy(b[at:], f)
	}
}

func closeTrain(all []Train, b []byte, seg int) []Train {
	if len(b) == 0 {
		return all
	}
	return append(all, Train{b, seg})
}
