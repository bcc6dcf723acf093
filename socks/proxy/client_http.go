package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"time"

	"skywire/socks"
)

// Limits on programs that send single HTTP requests.
const (
	httpIdle   = 75 * time.Second // between two requests
	httpBuffer = 16 << 10         // a server's longest header line
)

// server is the connection to the server of the last request.
type server struct {
	Stream
	br   *bufio.Reader
	host string
	port uint16
}

func (s *server) close() {
	if s.Stream != nil {
		s.Close()
	}
	*s = server{}
}

// forward carries a program's requests one by one. It returns an error only if the program waits for an answer.
func (c *Client) forward(ctx context.Context, r *socks.Request, conn Stream) error {
	var up server
	defer func() { up.close() }()
	for {
		o, err := c.exchange(ctx, r, conn, &up)
		if err != nil {
			return err
		}
		switch o {
		case socks.Switched:
			sent, received := join(ctx, conn, r.Exchange.Rest(), up)
			c.stats.sent.Add(sent)
			c.stats.received.Add(received)
			return nil
		case socks.OnceMore:
			up.close()
		case socks.Ended:
			up.close()
			goodbye(conn)
			conn.Close()
			return nil
		}
		if r.Next(conn, c.c.Credentials, httpIdle) != nil {
			goodbye(conn)
			conn.Close()
			return nil
		}
	}
}

// exchange carries one request and its answer. A connection that the server has just given up is no fault of the
// request's: what may be sent twice is.
func (c *Client) exchange(ctx context.Context, r *socks.Request, conn Stream, up *server) (socks.Outcome, error) {
	x := r.Exchange
	reuse := up.Stream != nil && up.host == x.Host && up.port == x.Port && x.Repeatable()
	for {
		sent := 0
		if !reuse {
			up.close()
			var err error
			if sent, err = c.openServer(ctx, r, conn, up); err != nil {
				return socks.Ended, err
			}
		}
		s := up.Stream // up may have another one by the time that ctx ends
		stop := context.AfterFunc(ctx, func() { s.Close() })
		o, answered, err := x.Do(conn, s, up.br, sent)
		stop()
		if err == nil || answered {
			c.stats.sent.Add(uint64(len(x.Head)))
			return o, nil
		}
		if !reuse {
			return socks.Ended, &Verdict{socks.HostUnreachable, "the server ended the connection without an answer"}
		}
		reuse = false
	}
}

// openServer opens a connection for a request. A head that may be sent twice travels with the target, and sent says how
// much of it has; every other one would be done twice where an exit's answer is lost.
func (c *Client) openServer(ctx context.Context, r *socks.Request, conn Stream, up *server) (sent int, err error) {
	x := r.Exchange
	w, err := c.wayTo(ctx, query(r, conn))
	if err != nil {
		return 0, err
	}
	var first []byte
	if x.Repeatable() {
		first = x.Head[:min(len(x.Head), socks.MaxFirst)]
	}
	s, err := c.open(ctx, w, x.Host, x.Port, first)
	if err != nil {
		return 0, err
	}
	c.stats.granted.Add(1)
	if w.action == socks.Direct {
		c.stats.direct.Add(1)
	}
	*up = server{Stream: s, br: bufio.NewReaderSize(s, httpBuffer), host: x.Host, port: x.Port}
	return len(first), nil
}

// join is relay for two sides of which some bytes have been read already.
func join(ctx context.Context, program Stream, rest io.Reader, up server) (sent, received uint64) {
	return relay(ctx, ahead{program, rest}, ahead{up.Stream, up.br})
}

// ahead is a stream that is read through a buffer.
type ahead struct {
	Stream
	r io.Reader
}

func (a ahead) Read(b []byte) (int, error) { return a.r.Read(b) }

// answerPage serves what the proxy has of its own: its rules, for browsers.
func (c *Client) answerPage(r *socks.Request, conn Stream) error {
	body := ""
	if r.Path == "/proxy.pac" || r.Path == "/wpad.dat" {
		if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
			body = c.c.Rules.PAC(a.String())
		}
	}
	_ = conn.SetDeadline(time.Now().Add(goodbyeTimeout))
	_ = r.Answer(conn, socks.PACType, body)
	goodbye(conn)
	conn.Close()
	return nil
}
