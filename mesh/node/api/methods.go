package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream"
	"skywire/signal"
)

// access is who may call a method.
type access int

const (
	anyone   access = iota // whoever can open the socket
	apps                   // root, the node's own user, Config.AppUIDs
	operator               // root and the node's own user
)

// control is one JSON-RPC connection.
type control struct{ *client }

// call is one request on its way.
type call struct {
	*signal.Request
	from *control
}

type method struct {
	access access
	answer func(ctx context.Context, c *call) (any, error)
}

// table is all methods of the socket, save the two that open streams.
func (s *Server) table() map[string]method {
	all := map[string]method{
		"node.id":       {anyone, func(context.Context, *call) (any, error) { return s.node.Info(), nil }},
		"node.status":   {anyone, get(s.node.Status)},
		"node.peers":    {anyone, list(s.node.Peers)},
		"node.paths":    {anyone, list(s.node.Paths)},
		"node.routes":   {anyone, list(s.node.Routes)},
		"node.records":  {anyone, s.nodeRecords},
		"node.services": {anyone, s.nodeServices},
		"node.resolve":  {anyone, s.resolve},
		"node.whois":    {anyone, s.whois},
		"node.ping":     {anyone, s.ping},
		"node.trace":    {anyone, toKey(s, s.node.Trace)},
		"node.why":      {anyone, toKey(s, s.node.Why)},
		"node.events":   {anyone, s.events},
		"node.bench":    {operator, s.bench},

		"app.register": {apps, s.register},
		"app.status":   {apps, s.appStatus},
		"app.list":     {anyone, func(context.Context, *call) (any, error) { return s.apps.list(), nil }},
		"app.call":     {operator, s.appCall},

		"tun.attach":      {apps, s.attach},
		"tun.detach":      {apps, s.detach},
		"tun.policy":      {apps, s.policy},
		"carrier.sockets": {apps, s.sockets},
		"record.put":      {apps, s.putRecord},
		"paths.propose":   {apps, s.propose},
	}
	maps.Copy(all, s.memberTable())
	maps.Copy(all, s.nameTable())
	return all
}

// may tells whether a connection has an access.
func (s *Server) may(c *client, a access) bool {
	switch {
	case a == anyone:
		return true
	case !c.known:
		return false
	case c.cred.UID == 0 || c.cred.UID == s.self:
		return true
	}
	return a == apps && slices.Contains(s.appUIDs, c.cred.UID)
}

// answer is the handler of all control connections.
func (s *Server) answer(ctx context.Context, c *control, r *signal.Request) (any, error) {
	m, ok := s.methods[r.Method]
	if !ok {
		closeAll(r.Files)
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
	}
	if !s.may(c.client, m.access) {
		closeAll(r.Files)
		return nil, signal.Errorf(signal.ErrRefused, "%s is not for uid %d: run it as root or as the node's user", r.Method, c.cred.UID)
	}
	if r.Method != "tun.attach" {
		closeAll(r.Files)
		r.Files = nil
	}
	result, err := m.answer(ctx, &call{r, c})
	return result, toSignal(err)
}

// toSignal gives the errors of streams their names.
func toSignal(err error) error {
	var e *signal.Error
	switch {
	case err == nil || errors.As(err, &e):
		return err
	case errors.Is(err, stream.ErrUnreachable), errors.Is(err, stream.ErrLost):
		return signal.Errorf(signal.ErrUnreachable, "%v", err)
	case errors.Is(err, stream.ErrIdentity):
		return signal.Errorf(signal.ErrRefused, "%v", err)
	case errors.Is(err, stream.ErrHeader):
		return signal.Errorf(signal.ErrUsage, "%v", err)
	}
	return err
}

// get makes a method of a function without parameters.
func get[T any](f func(context.Context) (T, error)) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, _ *call) (any, error) { return f(ctx) }
}

// list is get for slices: no elements are [], not null.
func list[T any](f func(context.Context) ([]T, error)) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, _ *call) (any, error) {
		all, err := f(ctx)
		if all == nil {
			all = []T{}
		}
		return all, err
	}
}

// toKey makes a method of a function that asks about one node.
func toKey[T any](s *Server, f func(context.Context, key.Public) (T, error)) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		k, err := s.named(ctx, c)
		if err != nil {
			return nil, err
		}
		return f(ctx, k)
	}
}

// named is the node that KeyParams name.
func (s *Server) named(ctx context.Context, c *call) (key.Public, error) {
	var p KeyParams
	if err := c.Bind(&p); err != nil {
		return key.Public{}, err
	}
	return s.lookup(ctx, p.Key)
}

func (s *Server) lookup(ctx context.Context, name string) (key.Public, error) {
	if name == "" {
		return key.Public{}, signal.Errorf(signal.ErrUsage, "no node named")
	}
	if k, err := key.Parse(name); err == nil {
		return k, nil
	}
	return s.node.Resolve(ctx, name)
}

func (s *Server) resolve(ctx context.Context, c *call) (any, error) {
	var p NameParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	k, err := s.lookup(ctx, p.Name)
	return KeyResult{k}, err
}

func (s *Server) whois(ctx context.Context, c *call) (any, error) {
	var p NameParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	if p.Name == "" {
		return nil, signal.Errorf(signal.ErrUsage, "no node named")
	}
	return s.node.Whois(ctx, p.Name)
}

func (s *Server) nodeServices(ctx context.Context, c *call) (any, error) {
	var p ServicesParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	all := []app.Service{}
	if p.Own {
		for _, o := range s.Services() {
			if p.Type == "" || o.Type == p.Type {
				all = append(all, o)
			}
		}
		return all, nil
	}
	found, err := s.node.Services(ctx, p.Type)
	size := 0
	for _, f := range found { // nearest first: what does not fit is far away
		if size += fixedBytes + escaped*(len(f.Name)+len(f.Type)+len(f.Meta)+len(f.Node)); size > maxPage {
			break
		}
		all = append(all, f)
	}
	return all, err
}

// nodeRecords answers a page of records, in order of their keys.
func (s *Server) nodeRecords(ctx context.Context, c *call) (any, error) {
	var p RecordsParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	found, err := s.node.Records(ctx)
	page, size := []Record{}, 0
	for _, r := range found {
		if !p.After.IsZero() && !p.After.Less(r.Key) {
			continue
		}
		if size += r.size(); size > maxPage {
			break
		}
		page = append(page, r)
	}
	return page, err
}

// size is what the JSON of a record takes at most.
func (r *Record) size() int {
	n := fixedBytes + 2*len(r.Raw) + escaped*(len(r.Name)+len(r.Version)) + fixedBytes*len(r.Links)/2
	for _, a := range r.Addrs {
		n += 8 + escaped*len(a)
	}
	for _, s := range r.Services {
		n += fixedBytes/2 + escaped*(len(s.Name)+len(s.Type)+len(s.Meta)+len(s.Node))
	}
	return n
}

func (s *Server) ping(ctx context.Context, c *call) (any, error) {
	k, err := s.named(ctx, c)
	if err != nil {
		return nil, err
	}
	rtt, err := s.node.Ping(ctx, k)
	return PingResult{k, float64(rtt.Microseconds()) / 1000}, err
}

func (s *Server) register(_ context.Context, c *call) (any, error) {
	var r app.Registration
	if err := c.Bind(&r); err != nil {
		return nil, err
	}
	return struct{}{}, s.apps.register(c.Conn, c.from.cred, r)
}

func (s *Server) appStatus(_ context.Context, c *call) (any, error) {
	if len(c.Params) > maxStatus {
		return nil, signal.Errorf(signal.ErrUsage, "app.status: more than %d bytes", maxStatus)
	}
	return struct{}{}, s.apps.setStatus(c.Conn, slices.Clone(c.Params))
}

func (s *Server) appCall(ctx context.Context, c *call) (any, error) {
	var p app.CallParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	conn := s.apps.conn(p.App)
	if conn == nil {
		return nil, signal.Errorf(signal.ErrNotFound, "no app %q has registered here", p.App)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var result json.RawMessage
	if err := conn.Call(ctx, p.Method, p.Params, &result); err != nil {
		if errors.Is(err, signal.ErrClosed) {
			return nil, signal.Errorf(signal.ErrNotRunning, "app %q has just left", p.App)
		}
		return nil, err
	}
	return result, nil
}

func (s *Server) attach(ctx context.Context, c *call) (any, error) {
	var p app.TUN
	err := c.Bind(&p)
	switch {
	case err != nil:
	case len(c.Files) < 1 || len(c.Files) > app.MaxQueues:
		err = signal.Errorf(signal.ErrUsage, "tun.attach: %d descriptors, want 1 to %d", len(c.Files), app.MaxQueues)
	case p.Device == "" || p.MTU < 1280 || p.MTU > 65535:
		err = signal.Errorf(signal.ErrUsage, "tun.attach: device %q with an mtu of %d", p.Device, p.MTU)
	}
	for _, f := range c.Files {
		if err == nil {
			err = checkTUN(f, p.Device)
		}
	}
	if err != nil {
		closeAll(c.Files)
		return nil, err
	}
	if err = s.node.AttachTUN(ctx, p, c.Files); err == nil {
		s.apps.attached(c.Conn, p.Device)
	}
	return struct{}{}, err
}

func (s *Server) detach(ctx context.Context, c *call) (any, error) {
	var p DeviceParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	return struct{}{}, s.node.DetachTUN(ctx, p.Device)
}

func (s *Server) policy(ctx context.Context, c *call) (any, error) {
	var p app.Policy
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	for _, rules := range [][]app.Rule{p.Routes, p.Grants, p.Serve} {
		for _, r := range rules {
			if !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked() || r.Key.IsZero() {
				return nil, signal.Errorf(signal.ErrUsage, "tun.policy: rule %s for %q: prefix or key is not valid", r.Prefix, r.Key)
			}
		}
	}
	return struct{}{}, s.node.SetPolicy(ctx, p)
}

func (s *Server) sockets(ctx context.Context, _ *call) (any, error) {
	files, err := s.node.Sockets(ctx)
	if err != nil {
		return nil, err
	}
	if len(files) > signal.MaxFiles {
		closeAll(files[signal.MaxFiles:])
		files = files[:signal.MaxFiles]
	}
	return signal.Reply{Result: SocketsResult{len(files)}, Files: files}, nil
}

func (s *Server) putRecord(ctx context.Context, c *call) (any, error) {
	var p RecordParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	return struct{}{}, s.node.PutRecord(ctx, p.Record)
}

func (s *Server) propose(ctx context.Context, c *call) (any, error) {
	var p Proposal
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	return struct{}{}, s.node.Propose(ctx, p)
}

// errNotTUN is the answer to a descriptor that is not the device it is said to be.
func errNotTUN(f *os.File, format string, args ...any) error {
	return signal.Errorf(signal.ErrRefused, "descriptor %s: %s", f.Name(), fmt.Sprintf(format, args...))
}
