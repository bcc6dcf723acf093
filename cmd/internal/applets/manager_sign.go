//go:build !mini && (issuer || !(mips || mipsle))

package applets

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/manager"
	"skywire/mesh/member"
)

const signAdminAbout = `Signs a new admin list in which KEY may do what --may says, and gives it to the node of this box, which tells all others.

KEY is an admin key (manager cluster admin-key on the other manager's box), or a node's or person's key for the scopes
operate and admin, which nothing else can give over the mesh. Without --may: issue, revoke and time. With --remove KEY
goes, and with it every certificate and revocation that it signed: let another manager renew the nodes first.

Where the cluster key lies on a box of its own, take the list there as --list (from: manager cluster show --json) and
bring what is printed back: manager cluster import TEXT.`

// signAdmin is what sign-admin was told.
type signAdmin struct {
	may, roles, tags []string
	ipv4, file, list string
	remove, print    bool
}

func clusterSignAdmin(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager cluster sign-admin", "KEY [--may P]… [--cluster-key FILE] [flags]", signAdminAbout)
	var c signAdmin
	f.ListVar(&c.may, "may", "a `POWER`: issue, revoke, time, operate, admin (repeatable)")
	f.ListVar(&c.roles, "role", "a `ROLE` that it may give: member, relay, exit, messenger, border, manager (repeatable; default member)")
	f.ListVar(&c.tags, "tag", "a `TAG` that it may give, * for any (repeatable)")
	f.StringVar(&c.ipv4, "ipv4", "", "IPv4 addresses that it may give, a `CIDR` of its own; none: no addresses (default: the next free /16 of 100.64.0.0/10)")
	f.StringVar(&c.file, "cluster-key", "", "the cluster key's `FILE` (default: cluster.key in --state)")
	f.StringVar(&c.list, "list", "", "the present list as `TEXT`, instead of the node's; prints the new one")
	f.BoolVar(&c.print, "print", false, "print the new list, and give it to nobody")
	f.BoolVar(&c.remove, "remove", false, "take KEY off the list")
	words, err := f.Parse(1, 1)
	var k key.Public
	if err == nil {
		if k, err = key.Parse(words[0]); err != nil {
			err = applet.Usagef("%v", err)
		}
	}
	var entry member.Admin
	if err == nil {
		entry, err = c.entry(k)
	}
	if err != nil {
		return f.Exit(err)
	}
	if c.file == "" {
		c.file = filepath.Join(f.State, clusterKeyName)
	}
	if c.list != "" {
		return f.Duty(ctx, func(context.Context) error { return c.offline(f, entry) })
	}
	return withStatements(ctx, f, func(ctx context.Context, node *app.Client, s *member.State) error {
		raw, err := c.sign(s, entry)
		if err != nil {
			return err
		}
		if c.print {
			return printStatement(e, raw)
		}
		if err := manager.MembersOf(node).PutStatements(ctx, [][]byte{raw}); err != nil {
			return err
		}
		e.Talk(managerName, "signed; see: manager cluster show")
		return nil
	})
}

func printStatement(e *applet.Env, raw []byte) error {
	_, err := fmt.Fprintln(e.Stdout, base64.RawURLEncoding.EncodeToString(raw))
	return err
}

func parseStatement(text string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, applet.Usagef("the list is cut or has a wrong letter: %v", err)
	}
	return raw, nil
}

// entry is what the flags say of a key.
func (c *signAdmin) entry(k key.Public) (a member.Admin, err error) {
	a = member.Admin{Key: k, Life: ownLife}
	if len(c.may) == 0 {
		c.may = []string{"issue", "revoke", "time"}
	}
	if len(c.roles) == 0 {
		c.roles = []string{"member"}
	}
	for _, w := range c.may {
		p := member.PowerWord(w)
		if p == 0 {
			return a, applet.Usagef("--may %s: issue, revoke, time, operate or admin", w)
		}
		a.Powers |= p
	}
	for _, w := range c.roles {
		r := member.RoleWord(w)
		if r == 0 {
			return a, applet.Usagef("--role %s: member, relay, exit, messenger, border or manager", w)
		}
		a.Roles |= r
	}
	for _, t := range c.tags {
		switch {
		case t == "*":
			a.AnyTag = true
		case !member.ValidName(t):
			return a, applet.Usagef("--tag %s: letters a to z, digits and inner hyphens", t)
		default:
			a.Tags = append(a.Tags, t)
		}
	}
	a.Tags = member.SortTags(a.Tags)
	if c.ipv4 != "" && c.ipv4 != "none" {
		if a.IPv4, err = netip.ParsePrefix(c.ipv4); err != nil || !a.IPv4.Addr().Is4() || a.IPv4.Masked() != a.IPv4 {
			return a, applet.Usagef("--ipv4 %s: a network such as 100.65.0.0/16, or none", c.ipv4)
		}
	}
	if a.Powers&member.MayIssue == 0 {
		a.Roles, a.Life, a.IPv4, a.Tags, a.AnyTag = 0, 0, netip.Prefix{}, nil, false
	}
	return a, nil
}

// sign makes the next list.
func (c *signAdmin) sign(s *member.State, entry member.Admin) ([]byte, error) {
	cluster, err := key.Load(c.file)
	if err != nil {
		return nil, fmt.Errorf("the cluster key is needed: %w; name its file with --cluster-key", err)
	}
	if cluster.Public() != s.Cluster() {
		return nil, fmt.Errorf("%s is the key of another cluster: %s", c.file, cluster.Public())
	}
	list, _ := s.Admins()
	if list == nil {
		return nil, fmt.Errorf("the present admin list is not known; wait for the node to learn it")
	}
	at := member.Instant{Wall: time.Now()}
	next := member.AdminList{Number: list.Number + 1, Issued: s.Stamp(at)}
	for _, a := range list.Admins {
		if a.Key != entry.Key {
			next.Admins = append(next.Admins, a)
		}
	}
	if !c.remove {
		if entry.Powers&member.MayIssue != 0 && c.ipv4 == "" {
			entry.IPv4 = member.FreeBlock(list, entry.Key)
		}
		next.Admins = append(next.Admins, entry)
	} else if len(next.Admins) == len(list.Admins) {
		return nil, applet.WithCode(applet.NotFound, fmt.Errorf("%s is not on the list", entry.Key))
	}
	return next.Sign(cluster)
}

// offline signs where there is no node.
func (c *signAdmin) offline(f *applet.Flags, entry member.Admin) error {
	cluster, err := key.Load(c.file)
	if err != nil {
		return fmt.Errorf("the cluster key is needed: %w; name its file with --cluster-key", err)
	}
	raw, err := parseStatement(c.list)
	if err != nil {
		return err
	}
	at := member.Instant{Wall: time.Now()}
	s := member.New(member.Config{Cluster: cluster.Public()}, at)
	if _, err := s.Put(at, raw); err != nil {
		return fmt.Errorf("the list given: %w", err)
	}
	if raw, err = c.sign(s, entry); err != nil {
		return err
	}
	return printStatement(f.Env(), raw)
}

func clusterImport(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager cluster import", "TEXT", "Gives the node of this box an admin list that sign-admin printed elsewhere; it tells all others.")
	words, err := f.Parse(1, 1)
	var raw []byte
	if err == nil {
		raw, err = parseStatement(words[0])
	}
	if err != nil {
		return f.Exit(err)
	}
	return withStatements(ctx, f, func(ctx context.Context, node *app.Client, s *member.State) error {
		if _, err := s.Put(member.Instant{Wall: time.Now()}, raw); err != nil {
			return err
		}
		if err := manager.MembersOf(node).PutStatements(ctx, [][]byte{raw}); err != nil {
			return err
		}
		e.Talk(managerName, "taken; see: manager cluster show")
		return nil
	})
}
