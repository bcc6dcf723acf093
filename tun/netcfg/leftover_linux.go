package netcfg

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Leftovers lists what killed vpns have left in this namespace: first what journals in dir know, then what is known to be
// ours by its name, number or comment, should the journal be lost. While a vpn runs, its own is not listed.
func Leftovers(dir string) ([]Leftover, error) {
	s := &sweep{dir: dir, held: map[string]bool{}}
	err := s.run()
	return s.found, err
}

// Repair takes back what Leftovers lists.
func Repair(dir string, log *slog.Logger) ([]Leftover, error) {
	s := &sweep{dir: dir, held: map[string]bool{}, repair: true, log: log}
	err := s.run()
	return s.found, err
}

// sweep looks for leftovers, and takes them back if it is to repair.
type sweep struct {
	dir    string
	repair bool
	log    *slog.Logger
	held   map[string]bool // devices that somebody owns
	found  []Leftover
	errs   []error
}

func (s *sweep) run() error {
	paths, err := filepath.Glob(journalPath(s.dir, "*"))
	if err != nil {
		return err
	}
	for _, p := range paths {
		device := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(p), "vpn-"), ".journal")
		if !strings.Contains(device, ".") { // the resolver's has a dot, and an owner of its own
			s.journal(device)
		}
	}
	s.tables()
	s.foreign()
	if len(s.held) == 0 { // routes and rules do not say whose they are
		s.routes()
		s.rules()
	}
	return errors.Join(s.errs...)
}

// note adds a leftover, and takes it back with f.
func (s *sweep) note(device, what string, f func() error) {
	s.found = append(s.found, Leftover{Device: device, What: what})
	if !s.repair {
		return
	}
	if err := f(); err != nil && !gone(err) {
		s.errs = append(s.errs, fmt.Errorf("take back %s: %w", what, explain(err)))
	}
}

func (s *sweep) fail(err error) bool {
	if err != nil {
		s.errs = append(s.errs, explain(err))
	}
	return err != nil
}

func (s *sweep) journal(device string) {
	j, owner, err := openJournal(s.dir, device)
	var held *HeldError
	if errors.As(err, &held) {
		s.held[device] = true
		return
	}
	if s.fail(err) {
		return
	}
	live := len(j.live)
	if s.fail(j.release()) || live == 0 || owner.Boot != bootID() || owner.NetNS != namespace() {
		return // empty, or gone with its boot
	}
	s.note(device, fmt.Sprintf("%d changes of a killed vpn (pid %d)", live, owner.PID), func() error {
		n, err := Open(Config{Dir: s.dir, Device: device, Log: s.log})
		if err != nil {
			return err
		}
		return n.Close()
	})
}

func (s *sweep) tables() {
	c, err := nftables.New()
	if s.fail(err) {
		return
	}
	all, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if s.fail(err) {
		return
	}
	for _, t := range all {
		device, ours := strings.CutPrefix(t.Name, tableName(""))
		if ours && !s.held[strings.TrimSuffix(device, clientSuffix)] {
			s.note(device, "nftables table "+t.Name, func() error {
				c.DelTable(t)
				return c.Flush()
			})
		}
	}
}

// foreign looks for our rules in other programs' chains.
func (s *sweep) foreign() {
	c, err := nftables.New()
	if s.fail(err) {
		return
	}
	chains, err := c.ListChains()
	if s.fail(err) {
		return
	}
	for _, ch := range chains {
		if strings.HasPrefix(ch.Table.Name, "skywire") {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			continue // gone meanwhile
		}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			device, ours := strings.CutPrefix(comment, "skywire ")
			if !ours || s.held[device] {
				continue
			}
			r.Table = ch.Table
			s.note(device, "rule in nftables chain "+ch.Table.Name+" "+ch.Name, func() error {
				if err := c.DelRule(r); err != nil {
					return err
				}
				return c.Flush()
			})
		}
	}
}

// routes looks for routes of our protocol, but those of a kill switch that is wanted.
func (s *sweep) routes() {
	for _, v6 := range []bool{false, true} {
		filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: protocolID}
		all, err := netlink.RouteListFiltered(family(v6), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if s.fail(err) {
			continue
		}
		for _, r := range all {
			if r.Table == lockTable {
				continue
			}
			to := "default"
			if r.Dst != nil {
				to = r.Dst.String()
			}
			s.note("", fmt.Sprintf("route to %s in table %d", to, r.Table), func() error { return netlink.RouteDel(&r) })
		}
	}
}

// rules looks for rules to our tables, and those that stand beside them.
func (s *sweep) rules() {
	for _, v6 := range []bool{false, true} {
		all, err := netlink.RuleList(family(v6))
		if s.fail(err) {
			continue
		}
		for _, r := range all {
			ours := r.Table >= holdTable && r.Table <= lastTable && r.Table != lockTable
			beside := r.Table == unix.RT_TABLE_MAIN && r.Priority >= rulePriority-1 && r.Priority < lockPriority-1
			if ours || beside {
				s.note("", fmt.Sprintf("rule %d for table %d", r.Priority, r.Table), func() error { return netlink.RuleDel(&r) })
			}
		}
	}
}
