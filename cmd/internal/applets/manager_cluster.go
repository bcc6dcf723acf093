//go:build !mini && (issuer || !(mips || mipsle))

package applets

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/manager"
	"skywire/mesh/member"
	"skywire/mesh/store"
)

// adminKeyName is the file of an admin's key in the state directory.
const adminKeyName = "admin.key"

// ownLife is the longest life that the first admin may give: ten times what it gives unless told otherwise.
const ownLife = 10 * member.DefaultLife

func clusterCommand() applet.Command {
	return applet.Command{
		Name:    "manager cluster",
		Summary: "who may sign for the cluster",
		About: "A cluster is known by its cluster key. That key signs one thing: the list of admins, whose keys sign certificates and\n" +
			"revocations. It is needed for create and sign-admin only, so it can lie in a drawer: move STATE/cluster.key away, and\n" +
			"name it with --cluster-key when another manager is to sign.",
		Verbs: []applet.Verb{
			{Name: "create", Args: "[--name NAME]", Summary: "a cluster of one: its key, a first admin, this node's certificate", Run: clusterCreate},
			{Name: "show", Summary: "the admin list", Run: clusterShow},
			{Name: "admin-key", Summary: "the admin key of this box, made if there is none", Run: clusterAdminKey},
			{Name: "sign-admin", Args: "KEY [--may P]…", Summary: "let another key sign, or take it off the list; needs the cluster key", Run: clusterSignAdmin},
			{Name: "import", Args: "TEXT", Summary: "give the node of this box a list that was signed elsewhere", Run: clusterImport},
		},
	}
}

const clusterCreateAbout = `Makes a cluster of which the node of this box is the first member, and this box's manager the first that may invite.

The cluster key is written to --state as cluster.key, the admin key as admin.key. Keep a copy of cluster.key off this box
and remove it here: who has it owns the cluster, and nothing of daily life needs it. The node may run or not.`

func clusterCreate(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager cluster create", "[--name NAME] [--ipv4 CIDR] [flags]", clusterCreateAbout)
	name := f.String("name", "", "`NAME` of this node in the cluster (default: the host's)")
	block := f.String("ipv4", "100.64.0.0/16", "IPv4 addresses for nodes, a `CIDR`; none: no such addresses")
	_, err := f.Parse(0, 0)
	var c founding
	if err == nil {
		c, err = foundingFrom(*name, *block)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return found(ctx, f, c) })
}

// founding is what a person may say about a new cluster.
type founding struct {
	name  string
	block netip.Prefix
}

func foundingFrom(name, block string) (c founding, err error) {
	if block != "none" {
		if c.block, err = netip.ParsePrefix(block); err != nil || !c.block.Addr().Is4() || c.block.Masked() != c.block {
			return c, applet.Usagef("--ipv4 %s: a network such as 100.64.0.0/16, or none", block)
		}
	}
	if c.name = name; name == "" {
		host, _ := os.Hostname()
		host, _, _ = strings.Cut(strings.ToLower(host), ".")
		if member.ValidName(host) {
			c.name = host
		}
	} else if !member.ValidName(name) {
		return c, applet.Usagef("--name %s: letters a to z, digits and inner hyphens, %d at most", name, member.MaxName)
	}
	return c, nil
}

// found makes the keys, signs, and gives the statements to the node, be it by its socket or by its store.
func found(ctx context.Context, f *applet.Flags, c founding) error {
	self, running, err := nodeToFound(ctx, f)
	if err != nil {
		return err
	}
	if running != nil {
		defer running.Close()
	}
	cluster, _, err := key.LoadOrCreate(filepath.Join(f.State, clusterKeyName))
	if err != nil {
		return err
	}
	admin, _, err := key.LoadOrCreate(filepath.Join(f.State, adminKeyName))
	if err != nil {
		return err
	}
	raws, err := c.sign(cluster, admin, self)
	if err != nil {
		return err
	}
	if running != nil {
		err = running.Call(ctx, "member.adopt", struct {
			Cluster    key.Public `json:"cluster"`
			Statements [][]byte   `json:"statements"`
		}{cluster.Public(), raws}, nil)
	} else {
		err = foundInStore(f, cluster.Public(), raws)
	}
	if err != nil {
		return err
	}
	e := f.Env()
	e.Talk(managerName, "the cluster key is %s: keep a copy elsewhere and remove it here; only manager cluster sign-admin needs it", filepath.Join(f.State, clusterKeyName))
	e.Talk(managerName, "next: skywire manager run, then skywire manager invite")
	if f.JSON {
		return e.PrintJSON(map[string]any{
			"cluster": cluster.Public(), "admin": admin.Public(), "node": self,
			"cluster_key_file": filepath.Join(f.State, clusterKeyName), "admin_key_file": filepath.Join(f.State, adminKeyName),
		})
	}
	_, err = fmt.Fprintln(e.Stdout, cluster.Public())
	return err
}

var errInCluster = errors.New("this node belongs to a cluster already; to leave it: skywire node leave")

// nodeToFound tells who the node of this box is, and is its client if it runs.
func nodeToFound(ctx context.Context, f *applet.Flags) (key.Public, *app.Client, error) {
	running, err := app.Dial(ctx, f.Run)
	if errors.Is(err, app.ErrNotRunning) {
		k, _, err := key.LoadOrCreate(filepath.Join(f.State, "node.key"))
		if err != nil {
			return key.Public{}, nil, err
		}
		return k.Public(), nil, nil
	}
	if err != nil {
		return key.Public{}, nil, noNode(err)
	}
	cluster, _, err := manager.MembersOf(running).Statements(ctx)
	if err == nil && !cluster.IsZero() {
		err = errInCluster
	}
	if err != nil {
		running.Close()
		return key.Public{}, nil, err
	}
	return running.Self().Key, running, nil
}

// foundInStore leaves the cluster and its statements where the node finds them at its start.
func foundInStore(f *applet.Flags, cluster key.Public, raws [][]byte) error {
	db, err := store.Open(filepath.Join(f.State, "node.db"), store.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	switch held, err := db.Cluster(); {
	case err != nil:
		return err
	case !held.IsZero():
		return errInCluster
	}
	return db.Batch(func(tx *store.Tx) error {
		tx.DeleteStatements()
		for _, raw := range raws {
			tx.PutStatement(member.RefOf(raw), raw)
		}
		tx.PutCluster(cluster)
		return nil
	})
}

// sign makes the first admin list and the first certificate.
func (c founding) sign(cluster, admin *key.Private, self key.Public) (raws [][]byte, err error) {
	at := member.Instant{Wall: time.Now()}
	s := member.New(member.Config{Cluster: cluster.Public()}, at)
	list := member.AdminList{Number: 1, Issued: s.Stamp(at), Admins: []member.Admin{{
		Key: admin.Public(), Powers: member.MayIssue | member.MayRevoke | member.MayTell,
		Roles: member.AllRoles, Life: ownLife, IPv4: c.block, AnyTag: true,
	}}}
	raw, err := list.Sign(cluster)
	if err != nil {
		return nil, err
	}
	cert := member.Certificate{
		Cluster: s.Network(), Node: self, Roles: member.RoleMember | member.RoleManager | member.RoleMessenger | member.RoleBorder, Serial: uint64(s.Stamp(at)) << 24,
		Issued: s.Stamp(at), NotAfter: s.Stamp(at) + int64(member.DefaultLife/time.Second), IPv4: s.FreeIPv4(c.block), Name: c.name,
	}
	second, err := cert.Sign(s.Network(), admin)
	if err != nil {
		return nil, err
	}
	raws = [][]byte{raw, second}
	if n := s.Load(at, raws); n > 0 || !s.Issuer(at, self) {
		return nil, errors.New("the statements of the new cluster do not hold") // never: they were made above
	}
	return raws, nil
}

// issuerFlags are those of manager run.
func issuerFlags(f *applet.Flags, c *managerConfig) {
	f.BoolVar(&c.Approve, "approve", false, "joiners wait until they are approved: manager approve NODE")
	f.IntVar(&c.CertificateDays, "certificate-days", 0, "life of certificates, which nodes renew at half of it (`DAYS`; default 90)")
}

// newIssuer makes what lets nodes in, for the manager of this box.
func newIssuer(f *applet.Flags, node *app.Client, db *store.DB, c managerConfig, log *slog.Logger) (manager.Signer, error) {
	return manager.NewIssuer(manager.IssuerConfig{
		Members: manager.MembersOf(node), Store: db, Admin: adminKey(f.State), Approve: c.Approve,
		Life: time.Duration(c.CertificateDays) * 24 * time.Hour, Up: link.Now, Wall: time.Now, Log: log,
	})
}

// adminKey returns what loads the admin key of this box when it is needed.
func adminKey(state string) func() (*key.Private, error) {
	path := filepath.Join(state, adminKeyName)
	return func() (*key.Private, error) {
		k, err := key.Load(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("this manager may not sign yet: it has no admin key; for a cluster of your own: skywire manager cluster create; for another manager of a cluster: skywire manager cluster admin-key")
		}
		return k, err
	}
}

func clusterAdminKey(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager cluster admin-key", "", "Prints the admin key of this box, and makes one (admin.key in --state) if there is none.\n"+
		"It may sign once somebody with the cluster key says so: manager cluster sign-admin KEY")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(context.Context) error {
		k, _, err := key.LoadOrCreate(filepath.Join(f.State, adminKeyName))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(e.Stdout, k.Public())
		return err
	})
}

// withStatements asks the node of this box for what it holds.
func withStatements(ctx context.Context, f *applet.Flags, do func(ctx context.Context, node *app.Client, s *member.State) error) int {
	return askManager(ctx, f, func(ctx context.Context, node *app.Client) error {
		cluster, raws, err := manager.MembersOf(node).Statements(ctx)
		if err != nil {
			return err
		}
		if cluster.IsZero() {
			return fmt.Errorf("the node of this box belongs to no cluster; make one with: skywire manager cluster create")
		}
		at := member.Instant{Wall: time.Now()}
		s := member.New(member.Config{Cluster: cluster}, at)
		s.Load(at, raws)
		return do(ctx, node, s)
	})
}

// adminInfo is an entry of the admin list for people and scripts.
type adminInfo struct {
	Key    key.Public `json:"key"`
	Powers []string   `json:"powers"`
	Roles  []string   `json:"roles"`
	LifeS  float64    `json:"life_s"`
	IPv4   string     `json:"ipv4,omitempty"`
	Tags   []string   `json:"tags"`
}

func clusterShow(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "manager cluster show", "[--json]", "Shows the admin list that the node of this box holds: who may sign what.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return withStatements(ctx, f, func(_ context.Context, _ *app.Client, s *member.State) error {
		list, raw := s.Admins()
		if list == nil {
			return fmt.Errorf("the node of this box does not know the admin list yet")
		}
		all := make([]adminInfo, 0, len(list.Admins))
		for _, a := range list.Admins {
			n := adminInfo{Key: a.Key, Powers: a.Powers.Words(), Roles: a.Roles.Words(), LifeS: a.Life.Seconds(), Tags: append([]string{}, a.Tags...)}
			if a.AnyTag {
				n.Tags = []string{"*"}
			}
			if a.IPv4.IsValid() {
				n.IPv4 = a.IPv4.String()
			}
			all = append(all, n)
		}
		if f.JSON {
			return e.PrintJSON(map[string]any{
				"cluster": s.Cluster(), "number": list.Number, "issued": time.Unix(list.Issued, 0).UTC(), "admins": all,
				"list": base64.RawURLEncoding.EncodeToString(raw),
			})
		}
		fmt.Fprintf(e.Stdout, "cluster  %s\nlist     %d of %s\n\n", s.Cluster(), list.Number, time.Unix(list.Issued, 0).UTC().Format(time.DateOnly))
		t := e.NewTable("KEY", "MAY", "ROLES", "IPV4", "TAGS", "LIFE")
		for _, a := range all {
			t.Row(a.Key, strings.Join(a.Powers, " "), strings.Join(a.Roles, " "), a.IPv4, strings.Join(a.Tags, " "), fmt.Sprintf("%.0f days", a.LifeS/86400))
		}
		return t.Flush()
	})
}
