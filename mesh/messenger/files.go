package messenger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// Chunks are small so that on a link of 20 kbit/s a text waits three seconds for one, not thirteen; a bundle takes several.
const (
	chunkLen   = 8 << 10
	chunkHead  = 20
	feed       = 128 // chunks of a file in a queue at a time
	maxRanges  = 64
	maxFileSet = 256 // transfers that are not over
	// MaxFile bounds a file: 2^32 chunks of it are numbered with room to spare.
	MaxFile = 1 << 42
)

// An offer: 1 │ file 16 │ size 8 │ SHA-256 32 │ name.
// A word:   op 1 │ file 16 │ text (no, cancel) or ranges: each {from 4, to 4} of chunks (want).
// A chunk:  file 16 │ number 4 │ bytes.
const (
	fileWant   = 1
	fileNo     = 2
	fileCancel = 3
	fileGot    = 4
)

type fileID [16]byte

// span is chunks from a up to but without b.
type span struct{ A, B uint32 }

// fileRecord is a transfer as the store has it.
type fileRecord struct {
	ID      fileID     `json:"id"`
	Message hexID      `json:"message"`
	Account key.Public `json:"account"`
	Device  key.Public `json:"device,omitzero"` // at the other end, once there is one
	Out     bool       `json:"out,omitempty"`
	Name    string     `json:"name"`
	Path    string     `json:"path,omitempty"`
	Size    int64      `json:"size"`
	Changed int64      `json:"changed,omitempty"` // of the source, unix nanoseconds
	Sum     [32]byte   `json:"sum"`
	State   FileState  `json:"state"`
	Reason  string     `json:"reason,omitempty"`
	Since   int64      `json:"since"`
	Spans   []span     `json:"spans,omitempty"` // out: to be queued; in: missing
	Queued  uint32     `json:"queued,omitempty"`
	Acked   uint32     `json:"acked,omitempty"`
	Asked   int64      `json:"asked,omitempty"` // in: unix, when it was asked for or something of it came last
}

type hexID MessageID

func (h hexID) MarshalText() ([]byte, error) { return []byte(MessageID(h).String()), nil }

func (h *hexID) UnmarshalText(b []byte) error {
	v, err := hex.DecodeString(string(b))
	if err != nil || len(v) != len(h) {
		return fmt.Errorf("id: %w", ErrFormat)
	}
	copy(h[:], v)
	return nil
}

type transfer struct {
	no   uint64
	rec  fileRecord
	file *os.File
}

func (t *transfer) over() bool {
	switch t.rec.State {
	case FileOffered, FileMoving:
		return false
	}
	return true
}

func (t *transfer) chunks() uint32 { return uint32((t.rec.Size + chunkLen - 1) / chunkLen) }

// part is where a file that comes lies until it is whole.
func (t *transfer) part(folder string) string {
	return filepath.Join(folder, "."+hex.EncodeToString(t.rec.ID[:])+".part")
}

func (c *core) loadFiles() {
	for _, t := range c.files {
		t.close()
	}
	c.files, c.syncs = map[uint64]*transfer{}, nil
	for _, e := range c.all(bFiles) {
		t := &transfer{no: unbe64(e.key)}
		if unmarshal(e.value, &t.rec) == nil {
			c.files[t.no] = t
		}
	}
	c.countChunks()
}

// countChunks finds how far the files that go have come: what of them waits in queues is the truth, which is not written down for each
// chunk that arrives.
func (c *core) countChunks() {
	queued := map[uint64]uint32{}
	for _, d := range c.devByNo {
		o := &d.out[streamBulk]
		for _, e := range c.db.list(bQueue, itemKey(d.number, streamBulk, o.Floor), itemKey(d.number, streamBulk, o.Next), 1<<20, false) {
			if len(e.value) == 17 && e.value[0] == queuedChunk {
				queued[unbe64(e.value[1:])]++
			}
		}
	}
	for _, t := range c.files {
		if !t.rec.Out || t.rec.State != FileMoving {
			continue
		}
		t.rec.Queued = queued[t.no]
		left := t.rec.Queued
		for _, s := range t.rec.Spans {
			left += s.B - s.A
		}
		t.rec.Acked = t.chunks() - min(t.chunks(), left)
	}
}

func (t *transfer) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

func (c *core) saveFile(t *transfer) { c.put(bFiles, be64(t.no), encode(t.rec)) }

func (c *core) fileBy(id fileID, out bool) *transfer {
	for _, t := range c.files {
		if t.rec.ID == id && t.rec.Out == out {
			return t
		}
	}
	return nil
}

// endFile ends a transfer.
func (c *core) endFile(t *transfer, s FileState, reason string) {
	t.close()
	if !t.rec.Out && s != FileDone && c.cfg.Files.Folder != "" {
		_ = os.Remove(t.part(c.cfg.Files.Folder))
	}
	t.rec.State, t.rec.Reason, t.rec.Since, t.rec.Spans = s, reason, c.now.Unix(), nil
	c.saveFile(t)
	c.pruneFiles()
	c.change()
}

// pruneFiles forgets the oldest transfers that are over.
func (c *core) pruneFiles() {
	var over []*transfer
	for _, t := range c.files {
		if t.over() {
			over = append(over, t)
		}
	}
	sort.Slice(over, func(i, j int) bool { return over[i].rec.Since < over[j].rec.Since })
	for len(c.files) > maxFileSet && len(over) > 0 {
		delete(c.files, over[0].no)
		c.drop(bFiles, be64(over[0].no))
		over = over[1:]
	}
}

// SendFile offers a file to an account. It is read as it goes, so it must stay where and as it is until then.
func (e *Engine) SendFile(ctx context.Context, to key.Public, path string) (f File, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return f, err
	}
	rec, err := describe(ctx, path)
	if err != nil {
		return f, err
	}
	if _, err := rand.Read(rec.ID[:]); err != nil {
		return f, err
	}
	err = e.durable(ctx, func(c *core) error {
		open := 0
		for _, t := range c.files {
			if !t.over() {
				open++
			}
		}
		if open >= maxFileSet {
			return ErrQueueFull
		}
		body := append([]byte{1}, rec.ID[:]...)
		body = append(binary.BigEndian.AppendUint64(body, uint64(rec.Size)), rec.Sum[:]...)
		id, err := c.send([]key.Public{to}, Outgoing{To: to, Kind: envelope.KindFile, Body: append(body, rec.Name...)})
		if err != nil {
			return err
		}
		rec.Message, rec.Account, rec.Out, rec.State, rec.Since = hexID(id), to, true, FileOffered, c.now.Unix()
		t := &transfer{no: c.number(), rec: rec}
		c.files[t.no] = t
		c.saveFile(t)
		f = t.shown()
		return nil
	})
	return f, err
}

// describe reads a file once, for its size and hash.
func describe(ctx context.Context, path string) (r fileRecord, err error) {
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return r, err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxFile {
		return r, fmt.Errorf("%s: %w", path, ErrNotFile)
	}
	h := sha256.New()
	b := make([]byte, 64<<10)
	for {
		n, err := f.Read(b)
		h.Write(b[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return r, err
		}
	}
	r = fileRecord{Name: filepath.Base(path), Path: path, Size: info.Size(), Changed: info.ModTime().UnixNano()}
	h.Sum(r.Sum[:0])
	return r, nil
}

func (t *transfer) shown() File {
	r := &t.rec
	f := File{
		ID: MessageID(r.Message), Account: r.Account, Out: r.Out, Name: r.Name, Path: r.Path, Size: r.Size, State: r.State,
		Reason: r.Reason, Since: time.Unix(r.Since, 0).UTC(),
	}
	switch {
	case r.State == FileDone:
		f.Done = r.Size
	case r.Out:
		f.Done = min(int64(r.Acked)*chunkLen, r.Size)
	case r.State == FileMoving:
		left := int64(0)
		for _, s := range r.Spans {
			left += min(int64(s.B)*chunkLen, r.Size) - int64(s.A)*chunkLen
		}
		f.Done = max(0, r.Size-left)
	}
	return f
}

// Files lists transfers, those that are over too as far as they are remembered.
func (e *Engine) Files() (all []File, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.core.files {
		all = append(all, e.core.shownFile(t))
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Since.Before(all[j].Since) })
	return all, nil
}

// AcceptFile takes a file that was offered.
func (e *Engine) AcceptFile(id MessageID) error {
	return e.durable(context.Background(), func(c *core) error {
		t := c.fileOf(id)
		if t == nil || t.rec.Out || t.rec.State != FileOffered {
			return ErrNoFile
		}
		return c.acceptFile(t)
	})
}

// RefuseFile refuses a file that was offered, or ends one that goes or comes.
func (e *Engine) RefuseFile(id MessageID) error {
	return e.durable(context.Background(), func(c *core) error {
		t := c.fileOf(id)
		if t == nil || t.over() {
			return ErrNoFile
		}
		op, state := byte(fileNo), FileRefused
		if t.rec.Out || t.rec.State == FileMoving {
			op, state = fileCancel, FileCanceled
		}
		c.sayFile(t, op, nil)
		c.endFile(t, state, "here")
		return nil
	})
}

func (c *core) fileOf(id MessageID) *transfer {
	for _, t := range c.files {
		if MessageID(t.rec.Message) == id {
			return t
		}
	}
	return nil
}

func (c *core) sayFile(t *transfer, op byte, body []byte) {
	b := append(append([]byte{op}, t.rec.ID[:]...), body...)
	if d := c.devices[t.rec.Device]; d != nil {
		c.sayTo(d, envelope.KindFileWord, b, MaxExpiry)
		return
	}
	c.say(c.accountOf(t.rec.Account), envelope.KindFileWord, b, envelope.GroupID{}, MaxExpiry)
}

// fileWord takes what the other side of a transfer says.
func (c *core) fileWord(d *device, from Sender, it *envelope.Item) {
	if len(it.Body) < 17 {
		c.count("malformed")
		return
	}
	op, id, rest := it.Body[0], fileID(it.Body[1:17]), it.Body[17:]
	t := c.fileBy(id, op != fileCancel)
	if t == nil && op == fileCancel {
		t = c.fileBy(id, true)
	}
	if t == nil || t.rec.Account != from.Account || t.over() {
		return
	}
	text := signal.Printable(string(rest[:min(len(rest), 100)]), "")
	switch op {
	case fileNo:
		c.endFile(t, FileRefused, text)
	case fileCancel:
		c.endFile(t, FileCanceled, "by them")
	case fileGot:
		c.endFile(t, FileDone, "")
	case fileWant:
		if !t.rec.Out || len(rest)%8 != 0 || len(rest) > 8*maxRanges {
			c.count("malformed")
			return
		}
		var spans []span
		for ; len(rest) > 0; rest = rest[8:] {
			s := span{binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])}
			if s.A >= s.B || s.B > t.chunks() {
				c.count("malformed")
				return
			}
			spans = append(spans, s)
		}
		c.unqueue(t)
		t.rec.Device, t.rec.State, t.rec.Spans, t.rec.Queued = d.key, FileMoving, spans, 0
		t.rec.Acked = t.chunks()
		for _, s := range spans {
			t.rec.Acked -= min(t.rec.Acked, s.B-s.A)
		}
		c.feed(t)
	}
}
