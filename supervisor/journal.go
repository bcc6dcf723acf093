package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A journal is the ring of an app as a file in RAM, so that the lines and their numbers outlive a killed viscript. It
// is two files: the older is dropped when the newer has grown to the size of the ring. A record is a line of text:
//
//	SEQ TIME KIND OFFSET TEXT      time in ns since 1970
//
//	o e    a line of standard output or error; OFFSET is where it ends in the spool
//	v      a note of viscript, OFFSET is 0
//	O E    no line, SEQ is 0: all before OFFSET of that spool is done with
//
// The last record may be cut off by a kill; then its line was shown to nobody and is read from the spool again.
type journal struct {
	path  string
	limit int64
	f     *os.File
	size  int64
	at    offsets // to begin a new file with
	buf   []byte
}

type kind byte

const (
	kindOutput kind = iota // of the line's stream
	kindNote               // of viscript
	kindMark               // an offset of the line's stream, without a line
)

// record is what a journal holds.
type record struct {
	kind kind
	line Line
	off  int64
}

// The streams of an app.
const (
	streamOut  = "stdout"
	streamErr  = "stderr"
	streamNote = "viscript"
)

// offsets are how far the spools have been read.
type offsets struct{ out, err int64 }

func (o *offsets) of(stream string) *int64 {
	if stream == streamErr {
		return &o.err
	}
	return &o.out
}

func (o *offsets) mark(r record) {
	if r.kind != kindNote {
		*o.of(r.line.Stream) = r.off
	}
}

// openJournal opens the journal at path; nothing is read or written yet.
func openJournal(path string, limit int) *journal { return &journal{path: path, limit: int64(limit)} }

func (j *journal) older() string { return j.path + ".0" }

// load returns what is kept. Damaged records are left out.
func (j *journal) load() (recs []record) {
	for _, path := range []string{j.older(), j.path} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			r, err := parseRecord(line)
			if err != nil || len(recs) > 0 && r.line.Seq > 0 && r.line.Seq <= recs[len(recs)-1].line.Seq {
				continue
			}
			j.at.mark(r)
			recs = append(recs, r)
		}
	}
	return recs
}

// write appends records. A full file system costs them, not the app.
func (j *journal) write(recs []record) {
	if j.f == nil || j.size > j.limit {
		j.turn()
	}
	if j.f == nil {
		return
	}
	j.buf = j.buf[:0]
	for _, r := range recs {
		j.at.mark(r)
		j.buf = appendRecord(j.buf, r)
	}
	n, err := j.f.Write(j.buf)
	j.size += int64(n)
	if err != nil {
		j.f.Close()
		j.f = nil
	}
	if cap(j.buf) > 256<<10 {
		j.buf = nil
	}
}

// turn opens the file, or begins a new one in place of one that is full.
func (j *journal) turn() {
	if j.f != nil {
		j.f.Close()
		j.f = nil
		os.Rename(j.path, j.older())
	}
	if os.MkdirAll(filepath.Dir(j.path), 0o700) != nil {
		return
	}
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return
	}
	j.f, j.size = f, st.Size()
	head := []byte{}
	if j.size > 0 {
		head = append(head, '\n') // ends what a kill may have cut off
	}
	for _, s := range []string{streamOut, streamErr} {
		head = appendRecord(head, record{kind: kindMark, line: Line{Stream: s}, off: *j.at.of(s)})
	}
	n, _ := f.Write(head)
	j.size += int64(n)
}

func (j *journal) close(forget bool) {
	if j.f != nil {
		j.f.Close()
		j.f = nil
	}
	if forget {
		os.Remove(j.path)
		os.Remove(j.older())
	}
}

func appendRecord(b []byte, r record) []byte {
	letter := byte('v')
	switch {
	case r.kind == kindNote:
	case r.line.Stream == streamErr:
		letter = 'e'
	default:
		letter = 'o'
	}
	if r.kind == kindMark {
		letter -= 'a' - 'A'
	}
	b = strconv.AppendUint(b, r.line.Seq, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.line.Time.UnixNano(), 10)
	b = append(b, ' ', letter, ' ')
	b = strconv.AppendInt(b, r.off, 10)
	b = append(b, ' ')
	b = append(b, r.line.Text...)
	return append(b, '\n')
}

var errRecord = errors.New("no record of a journal")

// parseRecord reads one record with its newline.
func parseRecord(b []byte) (record, error) {
	text, whole := strings.CutSuffix(string(b), "\n")
	f := strings.SplitN(text, " ", 5)
	if !whole || len(f) != 5 || len(f[2]) != 1 {
		return record{}, errRecord
	}
	seq, err1 := strconv.ParseUint(f[0], 10, 64)
	at, err2 := strconv.ParseInt(f[1], 10, 64)
	off, err3 := strconv.ParseInt(f[3], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	r := record{line: Line{Seq: seq, Time: time.Unix(0, at), Text: f[4]}, off: off}
	switch f[2] {
	case "v":
		r.kind, r.line.Stream = kindNote, streamNote
	case "o", "O":
		r.line.Stream = streamOut
	case "e", "E":
		r.line.Stream = streamErr
	default:
		return record{}, errRecord
	}
	if f[2] == "O" || f[2] == "E" {
		r.kind = kindMark
	}
	if off < 0 || (r.kind == kindMark) != (seq == 0) {
		return record{}, errRecord
	}
	return r, nil
}
