package messenger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// takeOffer takes an offer: it stands in the history like a text.
func (c *core) takeOffer(d *device, from Sender, it *envelope.Item, id MessageID) {
	r := fields(it.Body)
	r.Bad = r.U8() != 1
	rec := fileRecord{Message: hexID(id), Account: from.Account, Device: from.Device, State: FileOffered, Since: c.now.Unix()}
	copy(rec.ID[:], r.Take(16))
	rec.Size = int64(r.U64())
	copy(rec.Sum[:], r.Take(32))
	rec.Name = cleanName(string(r.Take(len(r.B))))
	open := 0
	for _, t := range c.files {
		if !t.over() && t.rec.Account == from.Account {
			open++
		}
	}
	if r.Bad || rec.Size < 0 || rec.Size > MaxFile || c.fileBy(rec.ID, false) != nil || open >= maxFileSet/4 || len(c.files) >= 2*maxFileSet {
		c.count("offers_bad")
		c.remember(id, 0, it.Expires)
		return
	}
	c.store(&record{
		id: id, account: d.account.number, device: d.number, kind: it.Kind, time: it.Time, expires: it.Expires, state: Received, body: it.Body,
	})
	t := &transfer{no: c.number(), rec: rec}
	c.files[t.no] = t
	f := c.cfg.Files
	switch {
	case f.Folder == "":
		c.sayFile(t, fileNo, []byte("no files are taken here"))
		c.endFile(t, FileRefused, "no folder for files")
	case f.Max > 0 && rec.Size > f.Max:
		c.sayFile(t, fileNo, []byte("too large"))
		c.endFile(t, FileRefused, "too large")
	case rec.Size <= f.Auto && (from.Own || c.book.Standing(from.Account) == Confirmed):
		if err := c.acceptFile(t); err != nil {
			c.endFile(t, FileFailed, err.Error())
		}
	default:
		c.saveFile(t)
	}
}

// cleanName makes of a peer's name one that can stand in our folder.
func cleanName(s string) string {
	s = signal.Printable(s, "")
	s = strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == ':' || r == 0 {
			return '_'
		}
		return r
	}, s)
	s = strings.TrimLeft(strings.TrimSpace(s), ".")
	for len(s) > 120 {
		s = s[:len(s)-1]
		s = strings.ToValidUTF8(s, "")
	}
	if s == "" {
		s = "file"
	}
	return s
}

func (c *core) acceptFile(t *transfer) error {
	f := c.cfg.Files
	if f.Folder == "" {
		return ErrNoFolder
	}
	if err := os.MkdirAll(f.Folder, 0o700); err != nil {
		return err
	}
	if f.Free != nil {
		if free, err := f.Free(f.Folder); err == nil && int64(min(free, MaxFile*2))-f.Spare < t.rec.Size {
			return fmt.Errorf("%d bytes free, %d are needed and %d to be spared: %w", free, t.rec.Size, f.Spare, ErrNoRoom)
		}
	}
	t.rec.State, t.rec.Since = FileMoving, c.now.Unix()
	if n := t.chunks(); n > 0 {
		t.rec.Spans = []span{{0, n}}
	}
	if err := c.openPart(t); err != nil {
		return err
	}
	c.saveFile(t)
	c.ask(t)
	c.change()
	return nil
}

func (c *core) openPart(t *transfer) (err error) {
	if t.file == nil {
		t.file, err = os.OpenFile(t.part(c.cfg.Files.Folder), os.O_RDWR|os.O_CREATE, 0o600)
	}
	return err
}

// ask asks for the chunks that are missing; of a whole file for its end.
func (c *core) ask(t *transfer) {
	if len(t.rec.Spans) == 0 {
		c.do(effect{check: t})
		return
	}
	var b []byte
	for _, s := range t.rec.Spans[:min(len(t.rec.Spans), maxRanges)] {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, s.A), s.B)
	}
	t.rec.Asked = c.now.Unix()
	c.saveFile(t)
	c.sayFile(t, fileWant, b)
}

// askAgain asks for files that nothing came of for an hour, or, by mailboxes, for a day: the other side may have lost its memory.
func (c *core) askAgain() {
	for _, t := range c.files {
		if t.rec.Out || t.rec.State != FileMoving {
			continue
		}
		wait := 24 * time.Hour
		if d := c.devices[t.rec.Device]; d != nil && d.link != nil && d.link.up {
			wait = time.Hour
		}
		if c.now.Sub(time.Unix(t.rec.Asked, 0)) > wait {
			c.ask(t)
		}
	}
}

// takeChunk writes a piece of a file that comes.
func (c *core) takeChunk(_ *device, from Sender, it *envelope.Item) {
	if len(it.Body) < 20 {
		c.count("malformed")
		return
	}
	n, data := binary.BigEndian.Uint32(it.Body[16:]), it.Body[20:]
	t := c.fileBy(fileID(it.Body[:16]), false)
	if t == nil || t.rec.State != FileMoving || t.rec.Account != from.Account || n >= t.chunks() {
		c.count("chunks_unasked")
		return
	}
	if want := min(chunkLen, t.rec.Size-int64(n)*chunkLen); int64(len(data)) != want {
		c.count("malformed")
		return
	}
	if !t.take(n) {
		c.count("duplicates")
		return
	}
	err := c.openPart(t)
	if err == nil {
		_, err = t.file.WriteAt(data, int64(n)*chunkLen)
	}
	if err != nil {
		c.sayFile(t, fileCancel, nil)
		c.endFile(t, FileFailed, err.Error())
		return
	}
	if c.syncs == nil {
		c.syncs = map[*os.File]bool{}
	}
	c.syncs[t.file] = true
	t.rec.Asked = c.now.Unix()
	c.saveFile(t)
	c.change()
	if len(t.rec.Spans) == 0 {
		c.do(effect{check: t})
	}
}

// take takes a chunk off what is missing; false if it is not.
func (t *transfer) take(n uint32) bool {
	for i, s := range t.rec.Spans {
		if n < s.A || n >= s.B {
			continue
		}
		var in []span
		if s.A < n {
			in = append(in, span{s.A, n})
		}
		if n+1 < s.B {
			in = append(in, span{n + 1, s.B})
		}
		if len(t.rec.Spans)+1 > 4*maxRanges && len(in) == 2 {
			return false // it will be asked for again
		}
		t.rec.Spans = append(append(append([]span{}, t.rec.Spans[:i]...), in...), t.rec.Spans[i+1:]...)
		return true
	}
	return false
}

// finishFile hashes a file that is whole and gives it its name, beside the lock: it takes seconds for a large one.
func (e *Engine) finishFile(t *transfer) {
	folder := e.cfg.Files.Folder
	part := t.part(folder)
	path, err := "", hashIs(part, t.rec.Size, t.rec.Sum)
	if err == nil {
		path, err = placeFile(part, folder, t.rec.Name)
	}
	e.call(func(c *core) {
		x := c.files[t.no]
		if x == nil || x.over() {
			return
		}
		switch {
		case errors.Is(err, errHash):
			// The source was changed, or our disk lied: all of it once more, and once only.
			c.count("files_wrong")
			c.sayFile(x, fileCancel, nil)
			c.endFile(x, FileFailed, "what came is not what was offered")
		case err != nil:
			c.endFile(x, FileFailed, err.Error())
		default:
			x.rec.Path = path
			c.sayFile(x, fileGot, nil)
			c.endFile(x, FileDone, "")
		}
	})
}

var errHash = errors.New("another hash")

func hashIs(path string, size int64, sum [32]byte) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if n != size || !bytes.Equal(h.Sum(nil), sum[:]) {
		return errHash
	}
	return f.Sync()
}

// placeFile links the part to its name, or to name (2), … if that is taken. It never replaces a file.
func placeFile(part, folder, name string) (string, error) {
	ext := filepath.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	for i := 1; i < 1000; i++ {
		path := filepath.Join(folder, name)
		if i > 1 {
			path = filepath.Join(folder, fmt.Sprintf("%s (%d)%s", stem, i, ext))
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // takes the name
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		f.Close()
		return path, os.Rename(part, path)
	}
	return "", fmt.Errorf("%s: %w", name, os.ErrExist)
}
