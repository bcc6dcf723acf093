package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// ClusterName is the file in the state directory that says to which cluster a node belongs. Without it the node is open
// or has a static list. It is a file of its own and not in the store: a damaged store must not open a closed mesh.
const ClusterName = "cluster.json"

// Cluster is what ClusterName holds.
type Cluster struct {
	Key key.Public `json:"cluster"`
	// Invite is by what the node joins, until it has its certificate. It holds a secret.
	Invite string `json:"invite,omitempty"`
	// Peers are where it began: KEY@ADDR, neighbours beside those of the configuration.
	Peers []string `json:"peers,omitempty"`
}

// ReadCluster reads the file in a state directory; the zero value where there is none.
func ReadCluster(state string) (c Cluster, err error) {
	path := filepath.Join(state, ClusterName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Cluster{}, nil
	}
	if err != nil {
		return Cluster{}, fmt.Errorf("read cluster: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil || c.Key.IsZero() {
		return Cluster{}, fmt.Errorf("%s: no cluster key in it: join again, or remove it to leave the cluster", path)
	}
	return c, nil
}

// WriteCluster puts c in its place, whole or not at all; the zero value removes the file.
func WriteCluster(state string, c Cluster) error {
	path := filepath.Join(state, ClusterName)
	if c.Key.IsZero() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write cluster: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(c)
	if err == nil {
		err = os.MkdirAll(state, 0o700)
	}
	if err != nil {
		return fmt.Errorf("write cluster: %w", err)
	}
	f, err := os.CreateTemp(state, "."+ClusterName+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write cluster: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write cluster: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// With is c with what an invite adds; ErrOtherCluster if that is of another cluster.
func (c Cluster) With(v *member.Invite, text string) (Cluster, error) {
	if !c.Key.IsZero() && c.Key != v.Cluster {
		return c, ErrOtherCluster
	}
	c.Key, c.Invite = v.Cluster, text
	peers := append([]string(nil), c.Peers...)
	for _, at := range v.Contacts {
		if p := at.Key.String() + "@" + strings.TrimPrefix(at.Addr, "udp://"); !slices.Contains(peers, p) {
			peers = append(peers, p)
		}
	}
	c.Peers = peers
	return c, nil
}

// badInvite is the error of text that is no invite.
func badInvite(err error) error { return signal.Errorf(signal.ErrUsage, "%v", err) }

// errOtherNetwork ends a Node whose network is another one from now on.
var errOtherNetwork = errors.New("the node belongs to another network now")

// Run runs nodes, one after the other, until ctx ends: the network id is in every handshake, address and signature, so who
// joins or leaves a cluster begins anew, in the same process, at the same ports. Apps see the node go and come back.
func Run(ctx context.Context, c Config) error {
	for {
		n, err := New(c)
		if err != nil {
			return err
		}
		err = n.Run(ctx)
		if !errors.Is(err, errOtherNetwork) || ctx.Err() != nil {
			return err
		}
		c.Listen, c.Ready = n.samePorts(c.Listen), nil
	}
}

// samePorts is where to listen again: a port that was any is now that one.
func (n *Node) samePorts(listen []string) []string {
	all := append([]string(nil), listen...)
	for i, a := range all {
		if host, ok := strings.CutSuffix(a, ":0"); ok && i*n.ports < len(n.sockets) {
			all[i] = fmt.Sprintf("%s:%d", host, n.sockets[i*n.ports].Addr().Port())
		}
	}
	return all
}

// awaitMove is the part of a Node that ends it when its network changed.
func (n *Node) awaitMove(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.moved:
	}
	t := time.NewTimer(moveAfter) // who asked for it gets an answer
	defer t.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-t.C:
		return errOtherNetwork
	}
}

// move ends this Node for one of another network.
func (n *Node) move() {
	select {
	case n.moved <- struct{}{}:
	default: // it ends already
	}
}
