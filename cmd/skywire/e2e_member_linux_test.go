package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
)

// cutWithin is how long anything of a revoked node may go on.
const cutWithin = time.Second

// TestE2EMember: a cluster from the first command to the last: invites redeemed over a member that is no issuer, names, traffic,
// revocation of a node in use, replays of what was signed before, restoration, and a mesh that works without its manager.
func TestE2EMember(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "join")
	w.boxes("a", "b", "c")
	w.must(
		w.lab.Wire(w.end("a", "next", "10.1.0.1/24"), w.end("b", "prev", "10.1.0.2/24")),
		w.lab.Wire(w.end("b", "next", "10.1.1.1/24"), w.end("c", "prev", "10.1.1.2/24")))
	for _, n := range []string{"a", "b", "c"} {
		w.node(n, "--no-lan") // open: joining changes that
	}
	manager := w.found("a")
	w.join("b", w.invite("a", "--addr", "10.1.0.1:"+meshPort, "--name", "beta"))
	w.join("c", w.invite("a", "--addr", w.key["b"]+"@10.1.1.1:"+meshPort, "--name", "gamma"))
	w.reachName("c", "a.mesh")
	w.reachName("a", "gamma")
	w.vpnUp("a", "c")
	w.pings("a", w.address("c"))

	old := w.statements("c")
	ping, err := w.box["c"].Start("ping", "ping", "-D", "-i", "0.05", w.address("a"))
	w.must(err)
	w.wait("answers to ping", func(context.Context) error {
		if strings.Count(ping.Output(), "time=") < 5 {
			return fmt.Errorf("%q", ping.Tail(2))
		}
		return nil
	})
	at := time.Now()
	w.skywire("a", "manager", "revoke", "gamma")
	w.unlinked("b", "c")
	w.wait("silence of ping", func(context.Context) error {
		if d := time.Since(lastAnswer(t, ping.Output())); d < 2*time.Second {
			return fmt.Errorf("the last answer came %v ago", d)
		}
		return nil
	})
	after := lastAnswer(t, ping.Output()).Sub(at)
	ping.Kill()
	t.Logf("the last answer came %v after the revocation was asked for", after)
	if after > cutWithin {
		t.Errorf("a revoked node was answered %v after its revocation was asked for, want less than %v", after, cutWithin)
	}
	w.replayed("b", old) // by a third party
	w.must(w.run["c node"].Stop(10 * time.Second))
	w.node("c", "--no-lan") // with all it knew
	if _, err := w.box["c"].Skywire(t.Context(), "node", "ping", "-c", "1", w.key["a"]); err == nil {
		t.Error("a revoked node reached the mesh after its restart")
	}
	w.unlinked("b", "c")
	w.skywire("a", "manager", "restore", w.key["c"])
	w.reachName("c", "a")

	w.must(manager.Stop(10*time.Second), w.run["a node"].Stop(10*time.Second))
	w.reachName("c", "beta") // without any issuer
}

// TestE2ERenewal: a certificate is renewed when half of its life is over, and one that ran out by a guest, over a member that is
// no issuer.
func TestE2ERenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "renew")
	w.boxes("a", "b", "c")
	w.must(
		w.lab.Wire(w.end("a", "next", "10.1.0.1/24"), w.end("b", "prev", "10.1.0.2/24")),
		w.lab.Wire(w.end("b", "next", "10.1.1.1/24"), w.end("c", "prev", "10.1.1.2/24")))
	w.node("a", "--no-lan")
	w.found("a")
	invite := w.invite("a", "--uses", "2", "--addr", "10.1.0.1:"+meshPort)
	w.node("b", "--no-lan")
	w.join("b", invite)
	// This one does not run yet: it joins when it is started.
	w.skywire("c", "node", "join", w.invite("a", "--addr", w.key["b"]+"@10.1.1.1:"+meshPort))
	w.node("c", "--no-lan")
	w.member("c", func(m membershipJSON) bool { return m.State == "member" })
	w.reachName("c", "a")
	for name, live := range map[string]bool{"half over": true, "run out": false} {
		w.certify("c", live)
		w.member("c", func(m membershipJSON) bool {
			return m.State == "member" && time.Until(m.Certificate.NotAfter) > 24*time.Hour
		})
		w.reachName("a", "c")
		t.Log("renewed:", name)
	}
}

// TestE2EStrangersAndProxies: who is no member gets nowhere, and an invite whose address leads to somebody else's box is not
// redeemed there; its secret does not leave the box.
func TestE2EStrangersAndProxies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "proxy")
	w.boxes("a", "p", "j")
	w.must(
		w.lab.Wire(w.end("a", "next", "10.1.0.1/24"), w.end("p", "prev", "10.1.0.2/24")),
		w.lab.Wire(w.end("p", "next", "10.1.1.1/24"), w.end("j", "prev", "10.1.1.2/24")))
	w.node("a", "--no-lan")
	w.found("a")
	invite := w.invite("a", "--addr", w.key["a"]+"@10.1.1.1:"+meshPort) // the proxy's address
	parsed, err := member.ParseInvite(invite)
	w.must(err)
	rec, err := w.box["j"].Record()
	w.must(err)
	w.node("p", "--no-lan")
	w.found("p") // a manager of its own, of another cluster
	w.node("j", "--no-lan")
	if _, err := w.box["j"].Skywire(t.Context(), "node", "join", "--wait", "5s", invite); err == nil {
		t.Error("joined over a box that is not the issuer")
	}
	for _, b := range rec.Stop() {
		if strings.Contains(string(b), string(parsed.Secret[:])) {
			t.Error("the secret of the invite was on the wire")
		}
	}
	// The right address: the same node joins after all.
	w.must(w.box["p"].Forward(), w.box["j"].IP("route add 10.1.0.0/24 via 10.1.1.1"), w.box["a"].IP("route add 10.1.1.0/24 via 10.1.0.2"))
	w.join("j", w.invite("a", "--addr", "10.1.0.1:"+meshPort))
	w.reachName("j", "a")
	if _, err := w.box["p"].Skywire(t.Context(), "node", "ping", "-c", "1", w.key["a"]); err == nil {
		t.Error("a box of another cluster reached us")
	}
}

// skywire runs a command that has to succeed and returns what it prints.
func (w *world) skywire(box string, args ...string) string {
	w.t.Helper()
	out, err := w.box[box].Skywire(w.t.Context(), args...)
	w.must(err)
	return strings.TrimSpace(out)
}

// found makes a cluster at a box and starts its manager.
func (w *world) found(box string) (manager interface{ Stop(time.Duration) error }) {
	w.t.Helper()
	w.skywire(box, "manager", "cluster", "create", "--name", box)
	w.member(box, func(m membershipJSON) bool { return m.State == "member" })
	p := w.start(box, "manager", "manager", "run")
	w.wait("manager of "+box, func(ctx context.Context) error {
		_, err := w.box[box].Skywire(ctx, "manager", "invites")
		return w.alive(p, err)
	})
	return p
}

func (w *world) invite(box string, args ...string) string {
	w.t.Helper()
	return w.skywire(box, append([]string{"manager", "invite"}, args...)...)
}

func (w *world) join(box, invite string) {
	w.t.Helper()
	w.skywire(box, "node", "join", invite)
}

// membershipJSON is what this file wants of node membership --json.
type membershipJSON struct {
	Mode, Cluster, State, Why string
	Certificate               struct {
		Name     string
		NotAfter time.Time `json:"not_after"`
	}
}

func (w *world) member(box string, ok func(membershipJSON) bool) {
	w.t.Helper()
	w.wait("membership of "+box, func(ctx context.Context) error {
		var m membershipJSON
		if err := w.box[box].SkywireJSON(ctx, &m, "node", "membership"); err != nil {
			return err
		}
		if !ok(m) {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})
}

// reachName waits until a name leads to a node that answers.
func (w *world) reachName(from, name string) {
	w.t.Helper()
	w.wait(from+" reaches "+name, func(ctx context.Context) error {
		_, err := w.box[from].Skywire(ctx, "node", "ping", "-c", "1", name)
		return err
	})
}

// unlinked waits until a node has no link with another one, and sees that it stays so for a second.
func (w *world) unlinked(box, from string) {
	w.t.Helper()
	since := time.Time{}
	w.wait(box+" has no link with "+from, func(ctx context.Context) error {
		var peers []struct{ Key, State string }
		if err := w.box[box].SkywireJSON(ctx, &peers, "node", "peers"); err != nil {
			return err
		}
		for _, p := range peers {
			if p.Key == w.key[from] && p.State == "up" {
				since = time.Time{}
				return fmt.Errorf("%+v", p)
			}
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) < time.Second {
			return fmt.Errorf("down for %v", time.Since(since))
		}
		return nil
	})
}

// client is a program beside a node, run by this process.
func (w *world) client(box string) *app.Client {
	w.t.Helper()
	c, err := app.Dial(w.t.Context(), w.box[box].Run())
	w.must(err)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// statements are all that a node holds of its cluster.
func (w *world) statements(box string) (all [][]byte) {
	w.t.Helper()
	c := w.client(box)
	var page struct {
		Statements [][]byte
		Next       []byte
	}
	for {
		w.must(c.Call(w.t.Context(), "member.list", map[string][]byte{"after": page.Next}, &page))
		if len(page.Statements) == 0 {
			return all
		}
		all = append(all, page.Statements...)
		page.Statements = nil
	}
}

// replayed gives a node statements of before: nothing of it may be news.
func (w *world) replayed(box string, old [][]byte) {
	w.t.Helper()
	var r struct{ News int }
	w.must(w.client(box).Call(w.t.Context(), "member.put", map[string][][]byte{"statements": old}, &r))
	if r.News != 0 {
		w.t.Errorf("%d old statements of %d were news", r.News, len(old))
	}
}

// certify gives a node a certificate, signed by the admin of box a, of which half is over; or all, unless it is to live.
func (w *world) certify(box string, live bool) {
	w.t.Helper()
	admin, _, err := key.LoadOrCreate(filepath.Join(w.box["a"].State(), "admin.key"))
	w.must(err)
	var held *member.Certificate
	for _, raw := range w.statements(box) {
		if c, err := member.ParseCertificate(raw); err == nil && c.Node.String() == w.key[box] {
			held = c
		}
	}
	c := *held
	c.Issued = held.Issued + 1
	c.NotAfter = c.Issued + 1
	if now := time.Now().Unix(); live {
		c.NotAfter = max(c.NotAfter, now+(now-c.Issued))
	}
	raw, err := c.Sign(c.Cluster, admin)
	w.must(err)
	var r struct {
		News    int
		Refused []string
	}
	w.must(w.client(box).Call(w.t.Context(), "member.put", map[string][][]byte{"statements": {raw}}, &r))
	if r.News != 1 {
		w.t.Fatalf("certificate of %s not taken: %v", box, r.Refused)
	}
}

// lastAnswer is when the last answer that ping -D printed came.
func lastAnswer(t *testing.T, out string) time.Time {
	t.Helper()
	all := regexp.MustCompile(`(?m)^\[(\d+\.\d+)\].*time=`).FindAllStringSubmatch(out, -1)
	if len(all) == 0 {
		t.Fatalf("no answer in %q", out)
	}
	v, err := strconv.ParseFloat(all[len(all)-1][1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMicro(int64(v * 1e6))
}
