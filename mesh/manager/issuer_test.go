//go:build issuer || !(mips || mipsle)

package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/store"
	"skywire/signal"
)

// heldNode is the node beside an issuer, as far as membership goes.
type heldNode struct {
	self app.Info
	asks chan *Asked

	mu    sync.Mutex
	state *member.State
	dead  bool // takes no statements
}

func (n *heldNode) Self() app.Info { return n.self }

func (n *heldNode) Accept(ctx context.Context) (*Asked, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case a := <-n.asks:
		return a, nil
	}
}

func (n *heldNode) PutStatements(_ context.Context, raws [][]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead {
		return errDown
	}
	n.state.Load(member.Instant{Wall: time.Unix(member.Epoch, 0)}, raws)
	return nil
}

func (n *heldNode) Statements(context.Context) (key.Public, [][]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == nil {
		return key.Public{}, nil, nil
	}
	raws, _ := n.state.Raws(member.Ref{}, 1<<20)
	return n.state.Cluster(), raws, nil
}

// office is an issuer with its store, key and node, on a clock of its own.
type office struct {
	t       *testing.T
	cluster *key.Private
	admin   *key.Private
	node    *heldNode
	path    string
	db      *store.DB
	i       *Issuer
	up      time.Duration
	wall    time.Time
	approve bool
}

// power is what the admins of a test may do.
func power(k key.Public) member.Admin {
	return member.Admin{
		Key: k, Powers: member.MayIssue | member.MayRevoke | member.MayTell, Roles: member.RoleMember | member.RoleManager,
		Life: 10 * member.DefaultLife, AnyTag: true,
	}
}

// newOffices makes issuers of one cluster, each with an admin key of its own and a node that is a manager.
func newOffices(t *testing.T, n int) (all []*office) {
	t.Helper()
	ids := identities(t, 2*n+1)
	list := member.AdminList{Number: 1, Issued: member.Epoch}
	for i := range n {
		a := power(ids[1+i].Public())
		a.IPv4 = member.FreeBlock(&list, a.Key)
		list.Admins = append(list.Admins, a)
	}
	raw, err := list.Sign(ids[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		o := &office{t: t, cluster: ids[0], admin: ids[1+i], path: filepath.Join(t.TempDir(), "manager.db"), wall: time.Unix(member.Epoch, 0)}
		self := ids[1+n+i].Public()
		network := key.Cluster(ids[0].Public())
		cert := member.Certificate{
			Node: self, Roles: member.RoleMember | member.RoleManager, Issued: member.Epoch,
			NotAfter: member.Epoch + int64(member.DefaultLife/time.Second), Name: "boss",
		}
		own, err := cert.Sign(network, o.admin)
		if err != nil {
			t.Fatal(err)
		}
		o.node = &heldNode{
			self: app.Info{Key: self, Network: network}, asks: make(chan *Asked, 4),
			state: member.New(member.Config{Cluster: ids[0].Public()}, o.at()),
		}
		if n := o.node.state.Load(o.at(), [][]byte{raw, own}); n != 0 {
			t.Fatal("statements refused")
		}
		o.start()
		all = append(all, o)
	}
	return all
}

func (o *office) at() member.Instant { return member.Instant{Up: o.up, Wall: o.wall.Add(o.up)} }

func (o *office) start() {
	o.t.Helper()
	db, err := store.Open(o.path, store.Options{})
	if err != nil {
		o.t.Fatal(err)
	}
	o.db = db
	o.t.Cleanup(func() { db.Close() })
	o.i, err = NewIssuer(IssuerConfig{
		Members: o.node, Store: db, Admin: func() (*key.Private, error) { return o.admin, nil }, Approve: o.approve,
		Up: func() time.Duration { return o.up }, Wall: func() time.Time { return o.wall.Add(o.up) }, Log: quiet(),
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

// restart is what a power cut and a new start leave: the file.
func (o *office) restart() {
	o.t.Helper()
	if err := o.db.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.start()
}

func (o *office) ask(method string, params, result any) error {
	o.t.Helper()
	raw, err := json.Marshal(params)
	if err != nil {
		o.t.Fatal(err)
	}
	v, err := o.i.Call(o.t.Context(), method, raw)
	if err != nil {
		return err
	}
	raw, err = json.Marshal(v)
	if err != nil {
		o.t.Fatal(err)
	}
	return json.Unmarshal(raw, result)
}

func (o *office) invite(p InviteParams) *member.Invite {
	o.t.Helper()
	if p.Uses == 0 {
		p.Uses = 1
	}
	if p.Seconds == 0 {
		p.Seconds = 3600
	}
	p.Contacts = []member.Contact{{Addr: "udp://192.0.2.1:4000"}}
	var info InviteInfo
	if err := o.ask(MethodInvite, p, &info); err != nil {
		o.t.Fatal(err)
	}
	v, err := member.ParseInvite(info.Text)
	if err != nil {
		o.t.Fatal(err)
	}
	return v
}

func (o *office) join(v *member.Invite, joiner key.Public, wish string) member.Reply {
	binding := [32]byte{1, 2, 3}
	return o.i.Answer(o.t.Context(), joiner, binding, member.Request{
		Op: member.OpJoin, Invite: v.ID, Proof: member.Proof(v.Secret, binding, joiner), Name: wish,
	})
}

func (o *office) state(method, node string) string {
	o.t.Helper()
	var m MemberInfo
	if err := o.ask(method, NodeParams{Node: node}, &m); err != nil {
		o.t.Fatal(err)
	}
	return m.State
}

// believes checks a reply as a joiner does, with the cluster key of its invite and nothing else.
func believes(t *testing.T, v *member.Invite, r member.Reply, joiner key.Public) *member.Certificate {
	t.Helper()
	b, err := member.ParseReply(r.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	at := member.Instant{Wall: time.Unix(member.Epoch, 0)}
	s := member.New(member.Config{Cluster: v.Cluster}, at)
	s.Load(at, b.Statements)
	m := s.Member(at, joiner)
	if r.Status != member.StatusDone || !s.Issuer(at, v.Issuer) || m.Rights != member.Member {
		t.Fatalf("status %d %q, issuer %+v, joiner %+v", r.Status, r.Reason, s.Member(at, v.Issuer), m)
	}
	return m.Certificate
}

func TestJoin(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	joiners := identities(t, 3)
	v := o.invite(InviteParams{Name: "attic", Tags: []string{"home"}})
	c := believes(t, v, o.join(v, joiners[0].Public(), "ignored"), joiners[0].Public())
	if c.Name != "attic" || len(c.Tags) != 1 || c.IPv4.String() != "100.64.0.1" || c.Roles != member.RoleMember {
		t.Errorf("certificate %+v", c)
	}
	if o.node.state.Member(o.at(), joiners[0].Public()).Rights != member.Member {
		t.Error("the node beside the manager has not heard of it")
	}
	if r := o.join(v, joiners[1].Public(), ""); r.Status != member.StatusRefused || !strings.Contains(r.Reason, "used") {
		t.Errorf("a second joiner: %+v", r)
	}
	again := o.join(v, joiners[0].Public(), "")
	if !bytes.Equal(again.Statements[len(again.Statements)-1], o.i.state.RawCertificate(joiners[0].Public())) {
		t.Error("the same joiner did not get the same certificate")
	}
	two := o.invite(InviteParams{Uses: 2})
	if c := believes(t, two, o.join(two, joiners[1].Public(), "attic"), joiners[1].Public()); c.Name != member.Claimed("attic", joiners[1].Public()) {
		t.Errorf("a name that is taken: %q", c.Name)
	}
	if c := believes(t, two, o.join(two, joiners[2].Public(), "porch"), joiners[2].Public()); c.Name != "porch" || c.IPv4.String() != "100.64.0.3" {
		t.Errorf("certificate %+v", c)
	}
	var all []MemberInfo
	if err := o.ask(MethodMembers, MembersParams{}, &all); err != nil || len(all) != 4 {
		t.Errorf("%d members, %v", len(all), err)
	}
}

func TestJoinRefused(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	x, y := identities(t, 1)[0].Public(), identities(t, 1)[0].Public()
	if r := o.join(&member.Invite{ID: member.InviteID{9}}, x, ""); r.Status != member.StatusRefused {
		t.Errorf("an invite of nobody's: %+v", r)
	}
	v := o.invite(InviteParams{})
	stolen := *v
	stolen.Secret[0] ^= 1
	for range 5 {
		if r := o.join(&stolen, x, ""); r.Status != member.StatusRefused {
			t.Fatalf("a wrong secret: %+v", r)
		}
	}
	o.restart() // closed means closed
	if r := o.join(v, y, ""); r.Status != member.StatusRefused || !strings.Contains(r.Reason, "wrong proofs") {
		t.Errorf("after five wrong proofs: %+v", r)
	}
	v = o.invite(InviteParams{})
	o.up += 59 * time.Minute
	o.i.Tidy(t.Context())
	o.restart()
	o.wall, o.up = time.Unix(0, 0), time.Hour // back in 1970, a day that counts for nothing
	o.i.Tidy(t.Context())
	if r := o.join(v, y, ""); r.Status != member.StatusDone {
		t.Errorf("59 minutes of an hour: %+v", r)
	}
	v = o.invite(InviteParams{})
	o.up += 61 * time.Minute
	if r := o.join(v, x, ""); r.Status != member.StatusRefused || !strings.Contains(r.Reason, "expired") {
		t.Errorf("61 minutes of an hour: %+v", r)
	}
	if got := o.state(MethodRevoke, y.String()); got != "revoked" {
		t.Errorf("revoked: %s", got)
	}
	v = o.invite(InviteParams{})
	if r := o.join(v, y, ""); r.Status != member.StatusRefused || !strings.Contains(r.Reason, "revoked") {
		t.Errorf("a revoked node: %+v", r)
	}
}

// The power goes after the transaction and before the answer: the joiner asks again and gets the certificate that was
// signed, the node hears of it, and the invite lets in nobody else.
func TestKilledBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	x, y := identities(t, 1)[0].Public(), identities(t, 1)[0].Public()
	v := o.invite(InviteParams{Name: "attic"})
	o.node.dead = true
	lost := o.join(v, x, "")
	o.restart()
	o.node.dead = false
	if r := o.join(v, y, ""); r.Status != member.StatusRefused {
		t.Errorf("somebody else, after the crash: %+v", r)
	}
	r := o.join(v, x, "")
	believes(t, v, r, x)
	if !bytes.Equal(r.Statements[len(r.Statements)-1], lost.Statements[len(lost.Statements)-1]) {
		t.Error("another certificate was signed")
	}
	if o.node.state.Member(o.at(), x).Rights != member.Member {
		t.Error("the node did not hear of what was signed before the crash")
	}
}

// The manager's box comes back from a backup that is older than a joiner: the mesh remembers him, so his invite lets in
// nobody else, and he has what he had.
func TestIssuerRestoredFromBackup(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	x, y := identities(t, 1)[0].Public(), identities(t, 1)[0].Public()
	v := o.invite(InviteParams{Name: "attic"})
	if err := o.db.Close(); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(o.path)
	if err != nil {
		t.Fatal(err)
	}
	o.start()
	c := believes(t, v, o.join(v, x, ""), x)
	if err := o.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	o.start()
	if r := o.join(v, y, ""); r.Status != member.StatusRefused || !strings.Contains(r.Reason, "used") {
		t.Errorf("somebody else, after the backup: %+v", r)
	}
	if again := believes(t, v, o.join(v, x, ""), x); again.Serial != c.Serial || again.Issued != c.Issued {
		t.Errorf("the joiner got %+v, had %+v", again, c)
	}
}

// A full or broken disk means that nothing is issued: nobody hears of what is not stored.
func TestNothingIssuedWithoutStore(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	x := identities(t, 1)[0].Public()
	v := o.invite(InviteParams{})
	if err := o.db.Close(); err != nil {
		t.Fatal(err)
	}
	if r := o.join(v, x, ""); r.Status != member.StatusBusy || len(r.Statements) != 0 {
		t.Errorf("%+v", r)
	}
	if o.node.state.Member(o.at(), x).Rights == member.Member {
		t.Error("a member that no store knows")
	}
}

// Two managers of one cluster, cut off from each other: the invite of one is nothing to the other (test 19).
func TestInviteAtTheOtherManager(t *testing.T) {
	t.Parallel()
	both := newOffices(t, 2)
	x := identities(t, 1)[0].Public()
	v := both[0].invite(InviteParams{})
	if r := both[1].join(v, x, ""); r.Status != member.StatusRefused || !strings.Contains(r.Reason, "no such invite") {
		t.Errorf("at the other manager: %+v", r)
	}
	believes(t, v, both[0].join(v, x, ""), x)
}

func TestApproval(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	o.approve = true
	o.restart()
	x, y := identities(t, 1)[0].Public(), identities(t, 1)[0].Public()
	v := o.invite(InviteParams{Uses: 2})
	for range 2 {
		if r := o.join(v, x, "attic"); r.Status != member.StatusPending || r.Retry == 0 {
			t.Fatalf("%+v", r)
		}
	}
	var m MemberInfo
	if err := o.ask(MethodApprove, NodeParams{Node: y.String()}, &m); !errors.Is(err, signal.ErrNotFound) {
		t.Errorf("approve who does not wait: %v", err)
	}
	if got := o.state(MethodApprove, x.String()[:6]); got != "member" {
		t.Errorf("approved: %s", got)
	}
	if c := believes(t, v, o.join(v, x, "attic"), x); c.Name != "attic" {
		t.Errorf("%+v", c)
	}
	o.join(v, y, "porch")
	if got := o.state(MethodDeny, "porch"); got != "pending" {
		t.Errorf("denied: %s", got)
	}
	if r := o.join(v, y, ""); r.Status != member.StatusRefused {
		t.Errorf("after it was denied: %+v", r)
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	both := newOffices(t, 2)
	o, other := both[0], both[1]
	x := identities(t, 1)[0].Public()
	renew := func(o *office) member.Reply {
		return o.i.Answer(t.Context(), x, [32]byte{}, member.Request{Op: member.OpRenew})
	}
	if r := renew(o); r.Status != member.StatusRefused {
		t.Errorf("nobody: %+v", r)
	}
	v := o.invite(InviteParams{Name: "attic"})
	first := believes(t, v, o.join(v, x, ""), x)
	if c := believes(t, v, renew(o), x); c.Issued != first.Issued {
		t.Error("renewed before half of its life")
	}
	raws, _ := o.node.state.Raws(member.Ref{}, 1<<20)
	other.node.state.Load(other.at(), raws)
	o.up += member.DefaultLife/2 + time.Hour
	other.up = o.up
	if r := renew(other); r.Status != member.StatusRefused || !strings.Contains(r.Reason, "only the manager") {
		t.Errorf("at a manager that may not give its address: %+v", r)
	}
	second := believes(t, v, renew(o), x)
	if second.Issued <= first.Issued || second.Serial != first.Serial || second.Name != "attic" || second.IPv4 != first.IPv4 {
		t.Errorf("renewed: %+v, was %+v", second, first)
	}
	o.up += 3 * member.DefaultLife
	o.i.Tidy(t.Context()) // the manager renews itself and signs the time, so that x has run out for certain
	if !o.i.state.Member(o.at(), x).Expired {
		t.Fatal("x did not run out")
	}
	if third := believes(t, v, renew(o), x); third.Serial != first.Serial || third.IPv4 != first.IPv4 {
		t.Errorf("renewed after it ran out: %+v", third)
	}
	if got := o.state(MethodRevoke, "attic"); got != "revoked" {
		t.Errorf("revoked: %s", got)
	}
	if r := renew(o); r.Status != member.StatusRefused {
		t.Errorf("a revoked node renews: %+v", r)
	}
	if got := o.state(MethodRestore, "attic"); got == "revoked" {
		t.Errorf("restored: %s", got)
	}
	if r := renew(o); r.Status != member.StatusDone {
		t.Errorf("a restored node: %+v", r)
	}
}

func TestIssuerRuns(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	x := identities(t, 1)[0].Public()
	v := o.invite(InviteParams{})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := o.i.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	replies := make(chan []byte, 1)
	for _, header := range [][]byte{
		nil, member.Request{Op: member.OpChain}.Append(nil),
		member.Request{Op: member.OpJoin, Invite: v.ID, Proof: member.Proof(v.Secret, [32]byte{5}, x)}.Append(nil),
	} {
		o.node.asks <- &Asked{Peer: x, Header: header, Binding: [32]byte{5}, Reply: func(b []byte) error { replies <- b; return nil }}
		r, err := member.ParseReply(<-replies)
		if want := header == nil; err != nil || (r.Status == member.StatusRefused) != want {
			t.Errorf("%x: %+v, %v", header, r, err)
		}
	}
	cancel()
	running.Wait()
}

// What the admin list does not give, no invite does.
func TestInviteWithinPowers(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	for name, p := range map[string]InviteParams{
		"role":     {Roles: member.RoleExit, Uses: 1, Seconds: 3600},
		"uses":     {Uses: 1000, Seconds: 3600},
		"expires":  {Uses: 1, Seconds: 1},
		"name":     {Name: "Bad Name", Uses: 1, Seconds: 3600},
		"tag":      {Tags: []string{"Bad Tag"}, Uses: 1, Seconds: 3600},
		"contacts": {Uses: 1, Seconds: 3600, Contacts: []member.Contact{}},
	} {
		if p.Contacts == nil {
			p.Contacts = []member.Contact{{Addr: "udp://192.0.2.1:4000"}}
		}
		var info InviteInfo
		if err := o.ask(MethodInvite, p, &info); err == nil {
			t.Errorf("%s: %+v", name, info)
		}
	}
	var all []InviteInfo
	if err := o.ask(MethodInvites, nil, &all); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := o.ask(MethodRevoke, NodeParams{Node: o.node.self.Key.String()}, &MemberInfo{}); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("the manager's own node: %v", err)
	}
}

func TestIssuerWithoutCluster(t *testing.T) {
	t.Parallel()
	o := newOffices(t, 1)[0]
	o.node.state = nil
	var all []InviteInfo
	if err := o.ask(MethodInvites, nil, &all); !errors.Is(err, signal.ErrRefused) || !strings.Contains(err.Error(), "cluster create") {
		t.Errorf("%v", err)
	}
	o.i.Tidy(t.Context())
}
