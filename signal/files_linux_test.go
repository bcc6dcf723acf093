package signal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// sockets returns a connected pair.
func sockets(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	b = c.(*net.UnixConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	deadline := time.Now().Add(20 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	return a, b
}

func tempFile(t *testing.T, content string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "f")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	f.WriteString(content)
	return f
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	b := make([]byte, 64)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		t.Error(err)
	}
	return string(b[:n])
}

// TestCallFile sends lines of all sizes, each with its own file, fast enough that reads hold parts of several.
func TestCallFile(t *testing.T) {
	t.Parallel()
	a, b := sockets(t)
	server := NewConn(b, func(_ context.Context, r *Request) (any, error) {
		if len(r.Files) != 1 {
			return nil, fmt.Errorf("%d files", len(r.Files))
		}
		defer r.Files[0].Close()
		return Reply{Result: content(t, r.Files[0]), Files: []*os.File{tempFile(t, "back")}}, nil
	})
	client := NewConn(a, nil)
	go server.Run(t.Context())
	go client.Run(t.Context())
	done := make(chan error)
	for i, size := range []int{0, 10, 4000, 5000, 60000, 300000, 0, 5000} {
		f := tempFile(t, fmt.Sprint("file ", i))
		go func() {
			var got string
			err := client.CallFile(t.Context(), "give", strings.Repeat("x", size), &got, f)
			if err == nil && got != fmt.Sprint("file ", i) {
				err = fmt.Errorf("call %d got %q", i, got)
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := client.Call(t.Context(), "give", nil, nil); err == nil || !strings.Contains(err.Error(), "0 files") {
		t.Errorf("without a file: %v", err)
	}
}

// TestReadLine: after a line the connection is a raw stream, so not one byte more may be taken.
func TestReadLine(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 4094, 4095, 4096, 9000} {
		a, b := sockets(t)
		f := tempFile(t, "tun")
		go func() {
			WriteLine(a, strings.Repeat("x", size), nil)
			WriteLine(a, map[string]bool{"handover": true}, f)
			io.WriteString(a, "raw\nbytes")
			a.CloseWrite()
		}()
		line, files, err := ReadLine(b, 10000)
		if err != nil || len(line) != size+2 || len(files) != 0 {
			t.Fatalf("size %d: %d bytes, %d files, %v", size, len(line), len(files), err)
		}
		line, files, err = ReadLine(b, 10000)
		if err != nil || string(line) != `{"handover":true}` || len(files) != 1 {
			t.Fatalf("size %d: %q, %d files, %v", size, line, len(files), err)
		}
		if got := content(t, files[0]); got != "tun" {
			t.Errorf("passed file holds %q", got)
		}
		files[0].Close()
		if rest, err := io.ReadAll(b); err != nil || string(rest) != "raw\nbytes" {
			t.Errorf("size %d: rest %q, %v", size, rest, err)
		}
	}
}

func TestReadLineErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		send string
		want error
	}{
		"end":       {"", io.EOF},
		"cut short": {"abc", io.ErrUnexpectedEOF},
		"too long":  {strings.Repeat("x", 101) + "\n", ErrLineTooLong},
		"no end":    {strings.Repeat("x", 9000), ErrLineTooLong},
	}
	for name, tt := range tests {
		a, b := sockets(t)
		go func() {
			io.WriteString(a, tt.send)
			a.CloseWrite()
		}()
		if _, _, err := ReadLine(b, 100); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	a, b := sockets(t)
	io.WriteString(a, strings.Repeat("y", 100)+"\n")
	if line, _, err := ReadLine(b, 100); err != nil || len(line) != 100 {
		t.Errorf("exactly the limit: %d, %v", len(line), err)
	}
}

// TestFilesNobodyTakes: descriptors beside lines that nobody handles are closed, not collected.
func TestFilesNobodyTakes(t *testing.T) {
	a, b := sockets(t) // not parallel: it counts the descriptors of the process
	c := NewConn(b, nil)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(t.Context()) }()
	f := tempFile(t, "x")
	before := openFiles(t)
	for range 100 {
		WriteLine(a, map[string]any{"jsonrpc": "2.0", "method": "note"}, f)
		WriteLine(a, map[string]any{"jsonrpc": "2.0", "id": 5, "result": 1}, f)
	}
	WriteLine(a, 17, nil)
	if err := <-ended; !errors.Is(err, ErrNotJSON) {
		t.Errorf("ended: %v", err)
	}
	if after := openFiles(t); after >= before {
		t.Errorf("%d descriptors before, %d after the connection has ended", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
