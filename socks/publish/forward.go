package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// maxForwarded bounds the connections of all forwards together: each is a descriptor here and one in the node.
const maxForwarded = 2048

// forwardDial bounds the wait for the other side.
const forwardDial = 20 * time.Second

// Forward is one local address that leads to a published service.
type Forward struct {
	Network string // tcp, udp or unix
	Listen  string
	Node    string // any form that the node resolves
	Service string // a name; or empty: the one at Port
	Port    uint16
}

// UDP tells whether packets are forwarded.
func (f Forward) UDP() bool { return f.Network == "udp" }

func (f Forward) String() string {
	listen := f.Listen
	if f.Network == "unix" {
		listen = "unix:" + listen
	}
	return listen + "=" + f.target()
}

func (f Forward) target() string {
	s := f.Service
	if s == "" {
		s = strconv.Itoa(int(f.Port))
	}
	if f.UDP() {
		s += "/udp"
	}
	node := f.Node
	if strings.Contains(node, ":") {
		node = "[" + node + "]"
	}
	return node + ":" + s
}

// ParseForward opens LISTEN=NODE:SERVICE[/udp]. LISTEN is HOST:PORT, PORT (on 127.0.0.1) or unix:PATH; SERVICE is a name or
// the port under which it is published.
func ParseForward(text string) (Forward, error) {
	bad := func(why string) (Forward, error) {
		return Forward{}, fmt.Errorf("%w %q: %s; want LISTEN=NODE:SERVICE, such as 127.0.0.1:8080=alice:web or 5353=alice:dns/udp", ErrSpec, text, why)
	}
	listen, to, ok := strings.Cut(text, "=")
	if !ok {
		return bad("no =")
	}
	f := Forward{Network: "tcp", Listen: listen}
	if t, udp := strings.CutSuffix(to, "/udp"); udp {
		f.Network, to = "udp", t
	}
	to = strings.TrimSuffix(to, "/tcp")
	i := strings.LastIndexByte(to, ':')
	if i <= 0 || i == len(to)-1 {
		return bad("no NODE:SERVICE behind the =")
	}
	f.Node, f.Service = strings.Trim(to[:i], "[]"), to[i+1:]
	if n, err := strconv.ParseUint(f.Service, 10, 16); err == nil {
		f.Service, f.Port = "", uint16(n)
		if n == 0 {
			return bad("port 0")
		}
	}
	if path, unix := strings.CutPrefix(listen, "unix:"); unix {
		if f.UDP() || path == "" {
			return bad("unix:PATH takes TCP services")
		}
		f.Network, f.Listen = "unix", path
		return f, nil
	}
	if _, err := strconv.ParseUint(listen, 10, 16); err == nil {
		f.Listen = net.JoinHostPort("127.0.0.1", listen)
	}
	if _, port, err := net.SplitHostPort(f.Listen); err != nil || port == "" {
		return bad("LISTEN is no HOST:PORT")
	}
	return f, nil
}

// ForwardNode is what a Forwarder needs of the node; *app.Client has it.
type ForwardNode interface {
	Names
	Resolve(ctx context.Context, name string) (key.Public, error)
	DialHandOverSocket(ctx context.Context, to key.Public, service string, header []byte, prepare func(reply []byte) (app.Socket, error)) (app.Traffic, error)
	DialPackets(ctx context.Context, to key.Public, service string, header []byte) (*app.PacketConn, error)
	Status(v any) error
}

// ForwarderConfig configures a Forwarder.
type ForwarderConfig struct {
	Node     ForwardNode
	Forwards []Forward
	Log      *slog.Logger
}

// Forwarder listens at local addresses and leads to published services, without any right beyond that.
type Forwarder struct {
	c    ForwarderConfig
	each []*forwarding
	all  atomic.Int64 // connections
}

// forwarding is one Forward at work.
type forwarding struct {
	Forward
	listener net.Listener
	packets  net.PacketConn
	relay    *udpRelay

	connections    atomic.Int64
	made, failed   atomic.Uint64
	sent, received atomic.Uint64
	fault          atomic.Pointer[string] // the last; nil after a success
}

// ForwardStatus is what a Forwarder publishes of each Forward.
type ForwardStatus struct {
	Listen      string `json:"listen"`
	Network     string `json:"network"`
	Node        string `json:"node"`
	Service     string `json:"service"`
	Connections int64  `json:"connections"`
	Made        uint64 `json:"made"`
	Failed      uint64 `json:"failed"`
	Sent        uint64 `json:"tx_bytes"`
	Received    uint64 `json:"rx_bytes"`
	Fault       string `json:"fault,omitempty"`
}

// NewForwarder opens all local addresses, so that an error shows at once. Run serves them.
func NewForwarder(c ForwarderConfig) (*Forwarder, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	f := &Forwarder{c: c}
	for _, spec := range c.Forwards {
		w := &forwarding{Forward: spec}
		if err := w.listen(); err != nil {
			f.close()
			return nil, err
		}
		f.each = append(f.each, w)
	}
	return f, nil
}

func (w *forwarding) listen() (err error) {
	switch w.Network {
	case "udp":
		w.packets, err = net.ListenPacket("udp", w.Listen)
	case "unix":
		removeSocket(w.Listen)
		w.listener, err = net.Listen("unix", w.Listen)
	default:
		w.listener, err = net.Listen("tcp", w.Listen)
	}
	if err != nil {
		return fmt.Errorf("%w on %s: %w", ErrListen, w.Listen, err)
	}
	if w.packets != nil {
		w.Listen = w.packets.LocalAddr().String()
	} else if w.Network == "tcp" {
		w.Listen = w.listener.Addr().String()
	}
	return nil
}

// removeSocket removes a socket that nobody listens on any more: one of a process that was killed.
func removeSocket(path string) {
	i, err := os.Lstat(path)
	if err != nil || i.Mode()&os.ModeSocket == 0 {
		return
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return
	}
	os.Remove(path)
}

func (f *Forwarder) close() {
	for _, w := range f.each {
		if w.listener != nil {
			w.listener.Close()
		}
		if w.packets != nil {
			w.packets.Close()
		}
	}
}

// Run serves until ctx ends, and returns nil then. Connections that were handed to the node outlive it.
func (f *Forwarder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer f.close() // wakes those who accept
	for _, w := range f.each {
		f.c.Log.Info("forward open", "addr", w.Listen, "service", w.target())
		if w.UDP() {
			w.relay = newUDPRelay(w.packets, func(ctx context.Context, _ net.Addr) (net.Conn, func(), error) { return f.dialPackets(ctx, w) })
			wg.Go(func() { w.relay.run(ctx) })
			continue
		}
		wg.Go(func() { f.accept(ctx, w, &wg) })
	}
	every(ctx, statusEvery, func() { _ = f.c.Node.Status(f.Status()) }) // shown, not relied on
	return nil
}

func (f *Forwarder) accept(ctx context.Context, w *forwarding, wg *sync.WaitGroup) {
	for {
		conn, err := w.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return
		case err != nil: // no descriptors left: that passes
			f.c.Log.Warn("accept", "addr", w.Listen, "err", err)
			pause(ctx, again)
			continue
		case f.all.Add(1) > maxForwarded:
			f.all.Add(-1)
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer f.all.Add(-1)
			f.lead(ctx, w, conn)
		})
	}
}

// lead brings one connection to its service, or resets it. Once the node has it, its end is waited for only as long as
// this process runs.
func (f *Forwarder) lead(ctx context.Context, w *forwarding, conn net.Conn) {
	socket, ok := conn.(app.Socket)
	if !ok {
		conn.Close()
		return
	}
	w.connections.Add(1)
	defer w.connections.Add(-1)
	dialing, cancel := context.WithTimeout(ctx, forwardDial)
	defer cancel()
	k, service, err := f.find(dialing, w)
	if err == nil {
		handed := false
		var t app.Traffic
		t, err = f.c.Node.DialHandOverSocket(ctx, k, service, nil, func([]byte) (app.Socket, error) {
			handed = true
			w.succeeded()
			return socket, nil
		})
		w.sent.Add(t.Sent)
		w.received.Add(t.Received)
		if handed {
			return
		}
	}
	w.failedWith(f.c.Log, err)
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) // what the service's own box would say: refused
	}
	conn.Close()
}

func (f *Forwarder) dialPackets(ctx context.Context, w *forwarding) (net.Conn, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, forwardDial)
	defer cancel()
	k, service, err := f.find(ctx, w)
	if err == nil {
		var conn *app.PacketConn
		if conn, err = f.c.Node.DialPackets(ctx, k, service, nil); err == nil {
			w.succeeded()
			return conn, nil, nil
		}
	}
	w.failedWith(f.c.Log, err)
	return nil, nil, err
}

// find resolves anew each time: nodes get new keys, services new names.
func (f *Forwarder) find(ctx context.Context, w *forwarding) (key.Public, string, error) {
	k, err := f.c.Node.Resolve(ctx, w.Node)
	if err != nil || w.Service != "" {
		return k, w.Service, err
	}
	n, err := f.c.Node.Lookup(ctx, k.String())
	if err != nil {
		return k, "", err
	}
	s := findService(n.Services, "", w.Port, w.UDP())
	if s == nil {
		return k, "", fmt.Errorf("%s publishes no %s: %w", w.Node, wanted("", w.Port, w.UDP()), ErrService)
	}
	return k, s.Name, nil
}

func (w *forwarding) succeeded() {
	w.made.Add(1)
	w.fault.Store(nil)
}

// failedWith counts, and logs what is new.
func (w *forwarding) failedWith(log *slog.Logger, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	w.failed.Add(1)
	text := err.Error()
	if old := w.fault.Swap(&text); old == nil || *old != text {
		log.Warn("service not reached", "addr", w.Listen, "service", w.target(), "err", err)
	}
}

// Status returns the state of every Forward.
func (f *Forwarder) Status() []ForwardStatus {
	var all []ForwardStatus
	for _, w := range f.each {
		s := ForwardStatus{
			Listen: w.Listen, Network: w.Network, Node: w.Node, Service: w.Service,
			Connections: w.connections.Load(), Made: w.made.Load(), Failed: w.failed.Load(),
			Sent: w.sent.Load(), Received: w.received.Load(),
		}
		if s.Service == "" {
			s.Service = strconv.Itoa(int(w.Port))
		}
		if w.relay != nil {
			s.Connections = int64(w.relay.size())
			s.Sent, s.Received = w.relay.sent.Load(), w.relay.received.Load()
		}
		if t := w.fault.Load(); t != nil {
			s.Fault = *t
		}
		all = append(all, s)
	}
	return all
}
