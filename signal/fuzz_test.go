package signal

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"testing"
	"time"
)

type stream struct {
	io.Reader
	out bytes.Buffer
}

func (s *stream) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s *stream) Close() error                { return nil }

// FuzzConn feeds arbitrary bytes to a connection: it must end, and everything it answers must be JSON-RPC lines.
func FuzzConn(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"echo","params":{"a":[1,2]}}` + "\n",
		`{"jsonrpc":"2.0","method":"note","timeout_ms":5}` + "\n" + `{"jsonrpc":"2.0","id":"x","result":null}` + "\n",
		`{"jsonrpc":"2.0","id":1,"error":{"code":-1,"name":"n","message":"m"}}` + "\n",
		`{"jsonrpc":"2.0","method":"$cancel","params":{"id":1}}` + "\n[1]\n\n{",
		"GET / HTTP/1.1\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &stream{Reader: bytes.NewReader(b)}
		c := NewConn(s, func(ctx context.Context, r *Request) (any, error) {
			var v struct{ A []int }
			return v, r.Bind(&v)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c.Run(ctx)
		if ctx.Err() != nil {
			t.Fatal("did not end")
		}
		for line := range bytes.Lines(s.out.Bytes()) {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(line, &m); err != nil || string(m["jsonrpc"]) != `"2.0"` {
				t.Fatalf("answered %q: %v", line, err)
			}
		}
	})
}
