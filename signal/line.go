package signal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// lineReader cuts a byte stream into lines. It keeps what it read beyond a line, so it must own the stream.
type lineReader struct {
	r     io.Reader
	unix  *net.UnixConn // not nil: descriptors may come along
	buf   []byte        // buf[start:end] is unread
	start int
	end   int
	seen  int // buf[start:start+seen] has no newline
	batch []passed
	armed bool
}

// passed are the descriptors of one read and how many bytes from start up to the end of that read. The kernel never
// merges anything behind a message that carries descriptors, so they belong to the line that holds the last byte.
type passed struct {
	files []*os.File
	at    int
}

func newLineReader(r io.Reader) *lineReader {
	u, _ := r.(*net.UnixConn)
	return &lineReader{r: r, unix: u, buf: make([]byte, 4096)}
}

func (l *lineReader) close() {
	for _, p := range l.batch {
		closeFiles(p.files)
	}
	l.batch = nil
}

// next returns the next line without its newline; the line is the caller's.
func (l *lineReader) next() ([]byte, []*os.File, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.start+l.seen:l.end], '\n'); i >= 0 {
			n := l.seen + i
			line := bytes.Clone(l.buf[l.start : l.start+n])
			l.start, l.seen = l.start+n+1, 0
			return line, l.take(n + 1), nil
		}
		l.seen = l.end - l.start
		if l.seen >= MaxLine {
			return nil, nil, ErrLineTooLong
		}
		l.deadline(l.seen > 0)
		if err := l.fill(); err != nil {
			return nil, nil, err
		}
	}
}

// take returns the files whose read ended within the n bytes of this line.
func (l *lineReader) take(n int) []*os.File {
	var files []*os.File
	rest := l.batch[:0]
	for _, p := range l.batch {
		if p.at <= n {
			files = append(files, p.files...)
		} else {
			rest = append(rest, passed{p.files, p.at - n})
		}
	}
	l.batch = rest
	return files
}

// deadline bounds the time a line may take once its first byte is here.
func (l *lineReader) deadline(partial bool) {
	if partial == l.armed {
		return
	}
	d, ok := l.r.(interface{ SetReadDeadline(time.Time) error })
	if !ok {
		return
	}
	l.armed = partial
	if partial {
		d.SetReadDeadline(time.Now().Add(LineTimeout))
	} else {
		d.SetReadDeadline(time.Time{})
	}
}

func (l *lineReader) fill() error {
	if l.start > 0 {
		copy(l.buf, l.buf[l.start:l.end])
		l.end -= l.start
		l.start = 0
	}
	if l.end == 0 && len(l.buf) > 64<<10 {
		l.buf = make([]byte, 4096) // give back what one long line took
	}
	if l.end == len(l.buf) {
		l.buf = append(l.buf, make([]byte, min(len(l.buf), MaxLine-len(l.buf)))...)
	}
	var n int
	var err error
	if l.unix != nil {
		var files []*os.File
		n, files, err = readFiles(l.unix, l.buf[l.end:])
		if len(files) > 0 {
			l.batch = append(l.batch, passed{files, l.end + n})
			if held := l.held(); held > 2*MaxFiles { // of this line and, at most, the next
				return errors.New("signal: too many descriptors with one line")
			}
		}
	} else {
		n, err = l.r.Read(l.buf[l.end:])
	}
	l.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	if l.end > 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (l *lineReader) held() (n int) {
	for _, p := range l.batch {
		n += len(p.files)
	}
	return n
}

// writeLine writes line, with files riding on its first byte.
func writeLine(w io.Writer, line []byte, files []*os.File) error {
	if len(files) > 0 {
		u, ok := w.(*net.UnixConn)
		if !ok {
			return fmt.Errorf("pass a descriptor over %T: %w", w, errors.ErrUnsupported)
		}
		if len(files) > MaxFiles {
			return fmt.Errorf("signal: %d descriptors with one line, at most %d", len(files), MaxFiles)
		}
		n, err := writeFiles(u, line, files)
		if err != nil {
			return err
		}
		if line = line[n:]; len(line) == 0 {
			return nil // even an empty write fails once the peer has answered and hung up
		}
	}
	_, err := w.Write(line)
	return err
}

// ReadLine reads one line of at most max bytes (without its newline) from a connection that goes on as a raw stream:
// nothing behind the newline is read. Files are the caller's. Deadlines are those the caller has set on c.
func ReadLine(c *net.UnixConn, max int) (line []byte, files []*os.File, err error) {
	for {
		// Look at what is there, then take exactly up to the newline.
		want := min(max+1-len(line), 4096)
		if want <= 0 {
			closeFiles(files)
			return nil, nil, ErrLineTooLong
		}
		n, err := peekLine(c, want)
		if err != nil {
			closeFiles(files)
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, nil, err
		}
		at := len(line)
		line = append(line, make([]byte, n)...)
		for at < len(line) {
			got, more, err := readFiles(c, line[at:])
			files = append(files, more...)
			if err == nil && got == 0 {
				err = io.ErrUnexpectedEOF
			}
			if err == nil && len(files) > MaxFiles {
				err = errors.New("signal: too many descriptors with one line")
			}
			if err != nil {
				closeFiles(files)
				return nil, nil, err
			}
			at += got
		}
		if line[len(line)-1] == '\n' {
			return line[:len(line)-1], files, nil
		}
	}
}

// WriteLine sends v as one line of JSON, with f (or nil) passed along; f stays the caller's.
func WriteLine(c *net.UnixConn, v any, f *os.File) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(line) >= MaxLine {
		return ErrLineTooLong
	}
	var files []*os.File
	if f != nil {
		files = []*os.File{f}
	}
	return writeLine(c, append(line, '\n'), files)
}
