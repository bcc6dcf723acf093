//go:build !mini && (issuer || !(mips || mipsle))

package applets

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/manager"
	"skywire/mesh/member"
)

// memberVerbs let nodes into the cluster and out of it.
func memberVerbs() []applet.Verb {
	return []applet.Verb{
		{Name: "cluster", Args: "create|show|sign-admin|admin-key|import", Summary: "make a cluster, and say who may sign for it", Run: clusterCommand().Run},
		{Name: "invite", Args: "[--name N] [--tag T]… [--uses N] [--expires D] [--qr]", Summary: "an invite to the cluster, alone on stdout", Run: managerInvite},
		{Name: "invites", Summary: "the invites of this manager", Run: managerInvites},
		{Name: "members", Summary: "all nodes of the cluster, and those that wait for approval", Run: managerMembers},
		{Name: "approve", Args: "NODE", Summary: "let a node in that waits", Run: decideVerb("approve", manager.MethodApprove, "Lets a node in that waits for approval (manager run --approve).")},
		{Name: "deny", Args: "NODE", Summary: "refuse a node that waits, and end its invite", Run: decideVerb("deny", manager.MethodDeny, "Refuses a node that waits for approval, and ends the invite that it came with.")},
		{Name: "revoke", Args: "NODE", Summary: "throw a node out of the cluster, at once", Run: decideVerb("revoke", manager.MethodRevoke,
			"Throws a node out of the cluster: every node that hears of it ends links, sessions and streams with its key within a second.\n"+
				"The word is kept by all nodes and can't be undone by an old one; only restore does.")},
		{Name: "restore", Args: "NODE", Summary: "take a revocation back", Run: decideVerb("restore", manager.MethodRestore, "Takes a revocation back.")},
	}
}

func decideVerb(name, method, about string) applet.Func {
	return func(ctx context.Context, e *applet.Env) int {
		f := applet.NewFlags(e, "manager "+name, "NODE [--json]", about+
			"\n\nNODE is a key, the start of one, a name of a certificate, or a mesh address.")
		words, err := f.Parse(1, 1)
		if err != nil {
			return f.Exit(err)
		}
		return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
			var m manager.MemberInfo
			if err := callApp(ctx, node, managerName, method, manager.NodeParams{Node: words[0]}, &m); err != nil {
				return err
			}
			if f.JSON {
				return e.PrintJSON(m)
			}
			e.Talk(managerName, "%s %s: %s", m.Key, m.Name, m.State)
			if m.State == "revoked" && slices.Contains(m.Roles, "manager") {
				e.Talk(managerName, "it was a manager: an admin key on its box signs on until manager cluster sign-admin KEY --remove")
			}
			return nil
		})
	}
}

const managerInviteAbout = `Makes an invite: a text that lets a node into the cluster with: skywire node join INVITE

It holds a secret: who has it first may join, so give it like a key. It names addresses where the joiner begins, this
node's own unless --addr says others; any member will do, and this manager must be reachable over the mesh to answer.
--expires counts the time that this manager runs.`

func managerInvite(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager invite", "[--name N] [--tag T]… [--uses N] [--expires D] [--qr] [flags]", managerInviteAbout)
	var tags, roles, addrs []string
	name := f.String("name", "", "`NAME` of the node in the cluster")
	f.ListVar(&tags, "tag", "`TAG` of the node (repeatable)")
	f.ListVar(&roles, "role", "`ROLE` beside member: relay, exit, messenger, border or manager (repeatable)")
	f.ListVar(&addrs, "addr", "where the joiner begins: `[KEY@]ADDR`, this node's key if none (repeatable, 3 at most)")
	uses := f.Int("uses", 1, "`N` nodes may join with it")
	expires := f.Duration("expires", 24*time.Hour, "`TIME` after which it is void")
	code := f.Bool("qr", false, "draw it as a QR code on stderr too")
	_, err := f.Parse(0, 0)
	p := manager.InviteParams{Name: *name, Tags: tags, Uses: *uses, Seconds: int64(expires.Seconds())}
	for _, r := range roles {
		word := member.RoleWord(r)
		if word == 0 && err == nil {
			err = applet.Usagef("--role %s: relay, exit, messenger, border or manager", r)
		}
		p.Roles |= word
	}
	if err == nil {
		p.Contacts, err = contacts(addrs)
	}
	if err != nil {
		return f.Exit(err)
	}
	return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
		if len(p.Contacts) == 0 {
			// Whether it may invite at all comes before the question where joiners begin.
			if err := callApp(ctx, node, managerName, manager.MethodSigner, nil, nil); err != nil {
				return err
			}
			if p.Contacts, err = ownContacts(ctx, node); err != nil {
				return err
			}
		}
		var v manager.InviteInfo
		if err := callApp(ctx, node, managerName, manager.MethodInvite, p, &v); err != nil {
			return err
		}
		if *code {
			if err := printQR(e.Stderr, v.QR); err != nil {
				e.Talk(managerName, "%s", err)
			}
		}
		if f.JSON {
			return e.PrintJSON(v)
		}
		_, err := fmt.Fprintln(e.Stdout, v.Text)
		return err
	})
}

// contacts reads [KEY@]ADDR words.
func contacts(words []string) (all []member.Contact, err error) {
	for _, w := range words {
		var c member.Contact
		k, addr, ok := strings.Cut(w, "@")
		if !ok {
			addr = w
		} else if c.Key, err = key.Parse(k); err != nil {
			return nil, applet.Usagef("--addr %s: %v", w, err)
		}
		if !strings.Contains(addr, "://") {
			addr = "udp://" + addr
		}
		c.Addr = addr
		if len(addr) > member.MaxContactAddr || strings.ContainsAny(addr, " \t\r\n") {
			return nil, applet.Usagef("--addr %s: no address", w)
		}
		all = append(all, c)
	}
	if len(all) > member.MaxContacts {
		return nil, applet.Usagef("--addr: %d at most", member.MaxContacts)
	}
	return all, nil
}

// ownContacts are the addresses that the node of this box tells others, those that can be dialled from elsewhere.
func ownContacts(ctx context.Context, node *app.Client) (all []member.Contact, err error) {
	var nodes []manager.NodeInfo
	self := node.Self().Key
	for after := (key.Public{}); ; after = nodes[len(nodes)-1].Key {
		nodes = nil
		if err := callApp(ctx, node, managerName, manager.MethodNodes, manager.NodesParams{After: after}, &nodes); err != nil {
			return nil, err
		}
		for _, n := range nodes {
			if n.Key != self {
				continue
			}
			for _, a := range n.Addresses {
				if dialable(a) && len(all) < member.MaxContacts {
					all = append(all, member.Contact{Key: self, Addr: a})
				}
			}
		}
		if len(nodes) == 0 || len(all) > 0 {
			break
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no address of this node is known that others can dial; give one with --addr HOST:PORT")
	}
	return all, nil
}

func dialable(addr string) bool {
	u, err := url.Parse(addr)
	if err != nil {
		return false
	}
	host, _, err := net.SplitHostPort(u.Host)
	if err != nil {
		host = u.Host
	}
	a, err := netip.ParseAddr(host)
	return host != "" && (err != nil || !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast())
}

func managerInvites(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager invites", "[--json]", "Lists the invites of this manager. Their text is shown once, by invite.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
		all := []manager.InviteInfo{}
		if err := callApp(ctx, node, managerName, manager.MethodInvites, nil, &all); err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("ID", "STATE", "NAME", "TAGS", "USED", "WAITING", "EXPIRES")
		for _, v := range all {
			left := time.Duration(v.Left * float64(time.Second))
			t.Row(v.ID, v.State, v.Name, strings.Join(v.Tags, " "), fmt.Sprintf("%d of %d", v.Used, v.Uses), v.Waiting, left.Round(time.Second))
		}
		return t.Flush()
	})
}

func managerMembers(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager members", "[--json]", "Lists all nodes that the cluster knows, with their certificates, and those that wait for approval.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
		all, err := managerPages(ctx, node, manager.MethodMembers, func(last manager.MemberInfo) any { return manager.MembersParams{After: last.Key} })
		if err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		t := e.NewTable("NAME", "KEY", "STATE", "ADDRESS", "IPV4", "ROLES", "TAGS", "UNTIL", "")
		for _, m := range all {
			until := ""
			if !m.NotAfter.IsZero() {
				until = m.NotAfter.Format(time.DateOnly)
			}
			if m.Conflict {
				m.Why = strings.TrimSpace("its name is in another certificate too; " + m.Why)
			}
			t.Row(m.Name, m.Key, m.State, m.Address, m.IPv4, strings.Join(m.Roles, " "), strings.Join(m.Tags, " "), until, m.Why)
		}
		return t.Flush()
	})
}
