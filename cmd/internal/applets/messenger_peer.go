//go:build !mini

package applets

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/peering"
	"skywire/signal"
)

// peerTimeout bounds what one question to the messenger may take; peer accept has a flag for that.
const peerTimeout = 60 * time.Second

const messengerPeerAbout = `Joins two clusters that are run separately, by key: each gives the other what it names, and nothing else of it becomes visible.

    here:   skywire messenger peer invite --name oslo --export web --at 203.0.113.7:7667
    there:  skywire messenger peer accept 'skywire:peer?…'
    then:   skywire socks forward --local 8080=GATE:web@oslo      GATE: the node there that runs the messenger

Both are done on a box that has an admin key of its cluster (skywire manager cluster) and runs skywire messenger run. Its
node must be reachable by the other cluster's. Whoever is to receive visitors needs the role border, messenger or manager.`

// messengerPeerVerbs are the verbs of messenger peer.
func messengerPeerVerbs() []applet.Verb {
	return []applet.Verb{
		{Name: "invite", Args: "[--export E]… [--ask E]… [flags]", Summary: "offer a peering; prints the invite alone", Run: peerInvite},
		{Name: "accept", Args: "INVITE|- [--yes] [flags]", Summary: "see what is offered, and take it", Run: peerAccept},
		{Name: "confirm", Args: "CLUSTER|ID", Summary: "let in who took an invite made with --confirm", Run: peerVerb("confirm", "CLUSTER|ID", "peer.confirm",
			"Signs the peering with a cluster that took an invite made with --confirm. Compare the safety number that peer list shows first.")},
		{Name: "list", Summary: "peerings and open invites", Run: peerList},
		{Name: "show", Args: "CLUSTER", Summary: "all of one peering", Run: peerVerb("show", "CLUSTER", "peer.show",
			"Shows one peering: CLUSTER is its name, its key, or the first eight letters of that.")},
		{Name: "change", Args: "CLUSTER [--alias NAME] [--allow WORD]…", Summary: "how it is called here, and who here may use it", Run: peerChange},
		{Name: "revoke", Args: "CLUSTER", Summary: "end a peering, at once and for good", Run: peerVerb("revoke", "CLUSTER", "peer.revoke",
			"Ends a peering: what its nodes have open here is cut within a second, and no old record brings it back. The other side\n"+
				"is told as soon as it is reached. A new peering needs a new invite.")},
		{Name: "introduce", Args: "CLUSTER CLUSTER", Summary: "tell two clusters of each other", Run: peerIntroduce},
		{Name: "dismiss", Args: "CLUSTER", Summary: "forget who was suggested, for good", Run: peerDismiss},
		{Name: "rotate", Args: "--old-key FILE [--new-key FILE]", Summary: "take the peerings along to a new cluster key", Run: peerRotate},
		{Name: "withdraw", Args: "ID", Summary: "take an invite back", Run: peerWithdraw},
	}
}

// peerCommand is messenger peer: a table of verbs of its own.
func peerCommand() applet.Command {
	return applet.Command{Name: "messenger peer", Summary: "clusters joined by key", About: messengerPeerAbout, Verbs: messengerPeerVerbs()}
}

// askPeering puts one question to the messenger of this box.
func askPeering(ctx context.Context, f *applet.Flags, timeout time.Duration, method string, params, result any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := signal.Dial(ctx, filepath.Join(f.Run, "messenger.sock"), nil)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
			return signal.Errorf(signal.ErrNotRunning, "no messenger runs beside this node: skywire messenger run")
		}
		return err
	}
	defer conn.Close()
	return conn.Call(ctx, method, params, result)
}

const peerInviteAbout = `Makes an invite for another cluster's administrator. It holds a secret: give it like a key; the first cluster that takes it has it.

--export says what they get, --ask what we want of them:
    web                       the service web of whichever node offers it
    web=alice:http            the service http of the node alice, as web
    web=@tag:http             of a node whose certificate has the tag
    db=tcp://10.0.0.7:5432    an address that this box reaches
    lan=10.0.0.0/24:80-443    a subnet and ports; streams to it say their target
Each appears there as NAME@US, over UDP too where the service is (of a node other than this one). Services are looked at now:
publish them first. A new invite that the same cluster takes replaces what was agreed before.`

// peerTerms are the flags of one direction.
type peerTerms struct {
	exports, verbs []string
	messaging      string
	rate, quota    string
}

func (t *peerTerms) terms() (peering.Terms, error) {
	v := peering.Terms{Exports: t.exports, Messaging: t.messaging, Verbs: t.verbs}
	var err error
	if v.Rate, err = sizeWord(t.rate); err != nil {
		return v, applet.Usagef("--rate %s: %v", t.rate, err)
	}
	if v.Quota, err = sizeWord(t.quota); err != nil {
		return v, applet.Usagef("--quota %s: %v", t.quota, err)
	}
	return v, nil
}

// sizeWord reads bytes with k, M or G behind them.
func sizeWord(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	unit, digits := uint64(1), s
	for i, u := range []string{"k", "M", "G"} {
		if d, ok := strings.CutSuffix(s, u); ok {
			unit, digits = 1<<(10*(i+1)), d
		}
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("want bytes, such as 500k, 20M or 2G")
	}
	return n * unit, nil
}

func peerInvite(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger peer invite", "[--export E]… [--ask E]… [flags]", peerInviteAbout)
	var gives, asks peerTerms
	var p peering.InviteParams
	var expires, lasts time.Duration
	nodes := 0
	f.StringVar(&p.Name, "name", "", "`NAME` of our cluster, as the other one is to see it")
	f.ListVar(&gives.exports, "export", "`E`: what the other cluster may use (repeatable)")
	f.ListVar(&asks.exports, "ask", "`E`: what ours is to use of it (repeatable)")
	f.StringVar(&gives.messaging, "messaging", "no", "who of them may write to us as a known cluster: `no|admins|all`")
	f.StringVar(&asks.messaging, "ask-messaging", "no", "who of us may write to them: `no|admins|all`")
	f.ListVar(&gives.verbs, "verb", "control `VERB` that they may use on our boxes, such as ping or status (repeatable)")
	f.ListVar(&asks.verbs, "ask-verb", "control `VERB` that we may use on theirs (repeatable)")
	f.StringVar(&gives.rate, "rate", "", "bytes a second and direction, for each of their nodes and exports: `500k`, 2M; default no limit")
	f.StringVar(&gives.quota, "quota", "", "bytes in 30 days: `2G`; default no limit")
	f.IntVar(&nodes, "nodes", 0, "`N` of their nodes that may be here at once; 0: as many as there is room for")
	f.ListVar(&p.Gates, "at", "`[KEY@]HOST:PORT` where our gate is reached (repeatable; default: this node's own)")
	f.DurationVar(&expires, "expires", 7*24*time.Hour, "for how `long` the invite is good")
	f.DurationVar(&lasts, "lasts", 0, "for how `long` the peering holds; 0: until it is revoked")
	f.BoolVar(&p.Confirm, "confirm", false, "look again when it is taken: skywire messenger peer confirm")
	_, err := f.Parse(0, 0)
	if err == nil {
		p.Gives, err = gives.terms()
	}
	if err == nil {
		p.Asks, err = asks.terms()
	}
	if err == nil && (nodes < 0 || nodes > 65535 || expires < time.Minute || lasts < 0) {
		err = applet.Usagef("--nodes, --expires or --lasts: out of range")
	}
	if err != nil {
		return f.Exit(err)
	}
	p.Gives.Nodes, p.ExpiresS, p.LastsS = uint16(nodes), int64(expires/time.Second), int64(lasts/time.Second)
	return f.Duty(ctx, func(ctx context.Context) error {
		var r peering.InviteResult
		if err := askPeering(ctx, f, peerTimeout, "peer.invite", p, &r); err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(r)
		}
		e.Talk("messenger", "good until %s; whoever takes it gets: %s", r.Expires.Local().Format(time.DateTime), grantText(r.Gives))
		_, err := fmt.Fprintln(e.Stdout, r.Invite)
		return err
	})
}

// grantText is a grant in one line.
func grantText(g peering.GrantInfo) string {
	var parts []string
	for _, x := range g.Exports {
		s := x.Name
		if x.To != x.Name {
			s += " (" + x.To + ")"
		}
		parts = append(parts, s)
	}
	if g.Messaging != "no" {
		parts = append(parts, "messages: "+g.Messaging)
	}
	if len(g.Verbs) > 0 {
		parts = append(parts, "control: "+strings.Join(g.Verbs, ", "))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	if g.Rate > 0 {
		parts = append(parts, applet.Bytes(g.Rate)+"/s")
	}
	if g.Quota > 0 {
		parts = append(parts, applet.Bytes(g.Quota)+" in 30 days")
	}
	return strings.Join(parts, "; ")
}

const peerAcceptAbout = `Shows what another cluster offers and asks for, with both fingerprints and a number to compare by voice, and takes it after a yes.
Use - to read the invite from stdin (with --yes). If the other side looks again (peer invite --confirm), it is asked until --timeout.`

func peerAccept(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger peer accept", "INVITE|- [--yes] [flags]", peerAcceptAbout)
	var p peering.AcceptParams
	var timeout time.Duration
	f.StringVar(&p.Name, "name", "", "`NAME` of our cluster, as the other one is to see it")
	f.StringVar(&p.Alias, "alias", "", "`NAME` by which we call the other one; default: its own")
	f.ListVar(&p.Gates, "at", "`[KEY@]HOST:PORT` where our gate is reached (repeatable; default: this node's own)")
	f.ListVar(&p.Allow, "allow", "`WORD`: who of us may use what they export; KEY, @TAG or * (repeatable; default: all members)")
	f.DurationVar(&timeout, "timeout", peerTimeout, "how `long` to wait for the other side")
	yes := f.Bool("yes", false, "take it without asking")
	words, err := f.Parse(1, 1)
	if err == nil && timeout <= 0 {
		err = applet.Usagef("--timeout: out of range")
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		in := bufio.NewReader(e.Stdin)
		p.Invite = words[0]
		if p.Invite == "-" {
			line, err := in.ReadString('\n')
			if p.Invite = strings.TrimSpace(line); p.Invite == "" {
				return applet.Usagef("no invite on stdin (%v)", err)
			}
		}
		var look peering.InviteInfo
		if err := askPeering(ctx, f, peerTimeout, "peer.look", p, &look); err != nil {
			return err
		}
		if !f.JSON || !*yes {
			showOffer(e, look)
		}
		if !*yes {
			fmt.Fprint(e.Stderr, "Take it? Type yes: ")
			line, err := in.ReadString('\n')
			if strings.TrimSpace(line) != "yes" {
				return signal.Errorf(signal.ErrRefused, "not taken (%q, %v); --yes takes it without asking", strings.TrimSpace(line), err)
			}
		}
		var r peering.AcceptResult
		if err := askPeering(ctx, f, timeout, "peer.accept", p, &r); err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(r)
		}
		if r.Peering == nil {
			return signal.Errorf(signal.ErrTimeout, "the other side has not confirmed yet: run the same command again later")
		}
		return showPeering(e, *r.Peering)
	})
}

func showOffer(e *applet.Env, i peering.InviteInfo) {
	w := e.Stderr
	fmt.Fprintf(w, "cluster  %s (%s)\nadmin    %s\nthey give  %s\nwe give    %s\n", i.Cluster, i.Name, i.Admin, grantText(i.Gives), grantText(i.Asks))
	if !i.Until.IsZero() {
		fmt.Fprintf(w, "until    %s\n", i.Until.Local().Format(time.DateTime))
	}
	fmt.Fprintf(w, "number to compare by voice: %s\n", i.Number)
}

// peerVerb asks for one thing about one peering, and shows it.
func peerVerb(name, args, method, about string) applet.Func {
	return func(ctx context.Context, e *applet.Env) int {
		f := applet.NewFlags(e, "messenger peer "+name, args+" [--json]", about)
		words, err := f.Parse(1, 1)
		if err != nil {
			return f.Exit(err)
		}
		return f.Duty(ctx, func(ctx context.Context) error {
			return peerShow(ctx, f, method, peering.PeerParams{Peer: words[0]})
		})
	}
}

func peerShow(ctx context.Context, f *applet.Flags, method string, p peering.PeerParams) error {
	var i peering.PeeringInfo
	if err := askPeering(ctx, f, peerTimeout, method, p, &i); err != nil {
		return err
	}
	if f.JSON {
		return f.Env().PrintJSON(i)
	}
	return showPeering(f.Env(), i)
}

func showPeering(e *applet.Env, i peering.PeeringInfo) error {
	w := e.Stdout
	fmt.Fprintf(w, "%s: %s", i.Name, i.State)
	if i.Why != "" {
		fmt.Fprintf(w, " (%s)", i.Why)
	}
	fmt.Fprintf(w, "\n  cluster   %s\n  record    %d, signed %s\n", i.Cluster, i.Number, i.Signed.Local().Format(time.DateTime))
	if !i.Expires.IsZero() {
		fmt.Fprintf(w, "  until     %s\n", i.Expires.Local().Format(time.DateTime))
	}
	if i.Rotated != nil {
		fmt.Fprintf(w, "  key       %s\n", rotatedText(i.Rotated))
	}
	fmt.Fprintf(w, "  we give   %s\n  they give %s\n", grantText(i.Gives), grantText(i.Gets))
	if len(i.Services) > 0 {
		fmt.Fprintf(w, "  here      %s\n", strings.Join(i.Services, " "))
	}
	fmt.Fprintf(w, "  gates     %s\n  visitors  %d, %d streams, %s in these 30 days\n  number to compare by voice: %s\n",
		strings.Join(i.Gates, " "), i.Visitors, i.Streams, applet.Bytes(i.Used), i.Number60)
	return nil
}

func peerList(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger peer list", "[--json]", "Lists the peerings of this cluster, in force and ended, and the invites of this box. Their text is shown once, by invite.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		var r peering.ListResult
		if err := askPeering(ctx, f, peerTimeout, "peer.list", struct{}{}, &r); err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(r)
		}
		t := e.NewTable("NAME", "STATE", "WE GIVE", "THEY GIVE", "VISITORS", "CLUSTER")
		for _, i := range r.Peerings {
			t.Row(i.Name, i.State, grantText(i.Gives), grantText(i.Gets), strconv.Itoa(i.Visitors), i.Cluster.Short())
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for _, i := range r.Invites {
			fmt.Fprintf(e.Stdout, "invite %s: %s, until %s; gives %s; asks %s\n", i.ID, i.State, i.Expires.Local().Format(time.DateTime), grantText(i.Gives), grantText(i.Asks))
			if i.State == "pending" {
				fmt.Fprintf(e.Stdout, "  taken by cluster %s; number to compare by voice: %s\n  skywire messenger peer confirm %s\n", i.By, i.Number, i.ID)
			}
		}
		for _, i := range r.Suggested {
			fmt.Fprintf(e.Stdout, "suggested by %s: cluster %s (%s), until %s; number to compare by voice: %s\n", i.By, i.Cluster, i.Name, i.Expires.Local().Format(time.DateTime), i.Number)
		}
		return nil
	})
}

func peerChange(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger peer change", "CLUSTER [--alias NAME] [--allow WORD]…",
		"Changes what is ours alone: how we call a peered cluster, and who of us may use what it exports. What the two gave each\n"+
			"other changes by a new invite that the other side takes.")
	var p peering.PeerParams
	f.StringVar(&p.Alias, "alias", "", "`NAME` by which we call it")
	f.ListVar(&p.Allow, "allow", "`WORD`: who of us may use what it exports; KEY, @TAG or * (repeatable)")
	words, err := f.Parse(1, 1)
	if err == nil && p.Alias == "" && len(p.Allow) == 0 {
		err = applet.Usagef("nothing to change: say --alias or --allow")
	}
	if err != nil {
		return f.Exit(err)
	}
	p.Peer = words[0]
	return f.Duty(ctx, func(ctx context.Context) error { return peerShow(ctx, f, "peer.set", p) })
}

func peerWithdraw(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger peer withdraw", "ID", "Takes an invite back that nobody has taken yet. ID: skywire messenger peer list")
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		return askPeering(ctx, f, peerTimeout, "peer.withdraw", peering.PeerParams{Peer: words[0]}, nil)
	})
}
