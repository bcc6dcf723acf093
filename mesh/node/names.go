package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/node/api"
	"skywire/signal"
)

// PetnamesName is the file in the state directory with the petnames that were given at run time.
const PetnamesName = "petnames.json"

// maxPetnames bounds what a person keeps in his head, and the file.
const maxPetnames = 1024

// petnames are the names that the owner of this box gave to keys. They come before any other name and are told nobody.
type petnames struct {
	path  string
	fixed map[string]key.Public // of the configuration

	mu    sync.Mutex
	given map[string]key.Public // in the file
}

// openPetnames reads what was given at run time. A file that can't be read costs its names, no more.
func openPetnames(state string, fixed map[string]key.Public) (*petnames, error) {
	p := &petnames{path: filepath.Join(state, PetnamesName), fixed: fixed, given: map[string]key.Public{}}
	b, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p.given)
	}
	if err != nil {
		p.given = map[string]key.Public{}
		return p, fmt.Errorf("read petnames: %w", err)
	}
	return p, nil
}

func (p *petnames) find(name string) (key.Public, bool) {
	if k, ok := p.fixed[name]; ok {
		return k, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := p.given[name]
	return k, ok
}

// of is the first petname of a key, "" if it has none.
func (p *petnames) of(k key.Public) (name string) {
	for _, e := range p.list() {
		if e.Key == k {
			return e.Name
		}
	}
	return ""
}

func (p *petnames) list() []api.Petname {
	p.mu.Lock()
	all := maps.Clone(p.given)
	p.mu.Unlock()
	maps.Copy(all, p.fixed)
	out := make([]api.Petname, 0, len(all))
	for name, k := range all {
		_, fixed := p.fixed[name]
		out = append(out, api.Petname{Name: name, Key: k, Fixed: fixed})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// set gives a key a name, or takes the name back where the key is zero.
func (p *petnames) set(name string, k key.Public) error {
	if !member.ValidName(name) {
		return signal.Errorf(signal.ErrUsage, "petname %q: want letters a to z, digits and inner hyphens, at most %d", name, member.MaxName)
	}
	if _, ok := p.fixed[name]; ok {
		return signal.Errorf(signal.ErrRefused, "petname %q stands in the configuration: change it there", name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := maps.Clone(p.given)
	if _, ok := next[name]; !ok && k.IsZero() {
		return signal.Errorf(signal.ErrNotFound, "no petname %q", name)
	}
	if delete(next, name); !k.IsZero() {
		next[name] = k
	}
	if len(next) > maxPetnames {
		return signal.Errorf(signal.ErrBusy, "%d petnames, no more are kept", maxPetnames)
	}
	if err := p.write(next); err != nil {
		return fmt.Errorf("write petnames: %w", err)
	}
	p.given = next
	return nil
}

// write puts the file in its place, whole or not at all.
func (p *petnames) write(all map[string]key.Public) error {
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(p.path), "."+PetnamesName+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), p.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// shortName is a name as it is looked up: lower case, without ".mesh" and the root's dot.
func shortName(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(name), "."), ".mesh")
}

// Petnames implements api.Node.
func (n *Node) Petnames(context.Context) ([]api.Petname, error) { return n.petnames.list(), nil }

// SetPetname implements api.Node.
func (n *Node) SetPetname(_ context.Context, name string, k key.Public) error {
	return n.petnames.set(shortName(name), k)
}

// Lookup implements api.Node: who has a name or an address for certain. A name is a petname, one of a certificate, a key,
// or this node's own; what another node calls itself is none.
func (n *Node) Lookup(ctx context.Context, p api.LookupParams) (out app.Names, err error) {
	name := shortName(p.Name)
	k, ok := n.petnames.find(name)
	err = n.do(ctx, func(time.Duration) {
		c := n.core
		switch {
		case ok:
		case p.Address.IsValid():
			k, ok = c.at(p.Address.Unmap())
		default:
			k, ok = c.certain(name)
		}
		if !ok {
			return
		}
		out = app.Names{Key: k, Address: n.network.Address(k)}
		if c.clustered() {
			out.Name, _ = c.members.state.Name(k)
			if k == c.self || c.belongs(k) {
				out.IPv4 = c.members.state.IPv4(k)
			}
		} else if k == c.self {
			out.Name = strings.ToLower(c.cfg.Name)
		}
		if e := c.db.Get(k); e != nil {
			for _, s := range e.Services {
				out.Services = append(out.Services, app.Service{Name: s.Name, Type: s.Type, Port: s.Port})
			}
		}
	})
	if err == nil && !ok {
		err = fmt.Errorf("%w: %q", ErrUnknown, p.Name)
	}
	if pet := n.petnames.of(k); ok && pet != "" {
		out.Name = pet
	}
	if !member.ValidName(out.Name) { // a host's name with capitals or underscores is no name for others' programs
		out.Name = ""
	}
	return out, err
}

// certain finds the node that a name stands for, whatever others call themselves.
func (n *Core) certain(name string) (key.Public, bool) {
	if k, err := key.Parse(name); err == nil {
		return k, true
	}
	if n.clustered() {
		return member.Resolve(nil, n.members.state, name)
	}
	return n.self, name != "" && name == strings.ToLower(n.cfg.Name)
}

// at finds the node that has a mesh address or a certified IPv4 address.
func (n *Core) at(a netip.Addr) (key.Public, bool) {
	if a == n.addr || n.clustered() && a == n.members.state.IPv4(n.self) {
		return n.self, true
	}
	if k, ok := n.byAddr[a]; ok {
		return k, true
	}
	return n.atIPv4(a)
}
