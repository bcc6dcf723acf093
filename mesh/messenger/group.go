package messenger

import (
	"errors"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/group"
)

// Bounds of groups.
const (
	// MaxGroups bounds the groups of a box: each has a log of 512 changes at most, some 100 kB.
	MaxGroups = 64
	maxFailed = 16 // changes of a word that are refused or follow what is not known
	// groupShare of the store is for rosters.
	groupShare = 4
	maxHalf    = 4 // rosters of which not all has come yet
	// largeAnswers of a roster go to one account in an hour: who asks more often gets what others may still want.
	largeAnswers = 12
	largeAnswer  = 8 << 10
)

// groupChange makes a change of ours and tells the members, with those that it adds or evicts.
func (c *core) groupChange(g *groupLog, o *group.Op) error {
	target := o.Target
	raw, err := g.roster.Sign(c.author(), c.now.Unix(), o)
	if err != nil {
		return err
	}
	c.saveGroup(g)
	if o.Kind == group.Remove && c.book.MaySend(target) == nil {
		c.tellGroup(g, target, [][]byte{raw}) // he may know: else the next that he says is refused
	}
	skip := key.Public{}
	if o.Kind == group.Add {
		skip = target
		c.tellGroup(g, target, g.roster.Ops())
	}
	c.tellMembers(g, [][]byte{raw}, skip)
	return c.renewGroup(g)
}

// renewGroup begins a new generation of a log that is half full.
func (c *core) renewGroup(g *groupLog) error {
	if g.roster.Len() <= group.MaxOps/2 || g.roster.Founder() != c.account || !g.roster.Has(c.account) {
		return nil
	}
	raw, err := g.roster.Renew(c.author(), c.now.Unix())
	if err != nil {
		return err
	}
	c.saveGroup(g)
	c.tellMembers(g, [][]byte{raw}, key.Public{})
	return nil
}

// tellMembers tells all members, our own other devices among them, of changes.
func (c *core) tellMembers(g *groupLog, ops [][]byte, skip key.Public) {
	for _, m := range g.roster.Members() {
		if m.Account != skip {
			c.tellGroup(g, m.Account, ops)
		}
	}
	if !g.roster.Has(c.account) {
		c.tellGroup(g, c.account, ops)
	}
}

// tellGroup tells an account which heads we have, and changes.
func (c *core) tellGroup(g *groupLog, k key.Public, ops [][]byte) {
	if k == c.account && len(c.siblings()) == 0 {
		return
	}
	w := group.Word{Group: g.roster.ID(), Generation: g.roster.Generation(), Heads: g.roster.Heads()}
	for _, body := range group.Words(w, ops) {
		c.say(c.accountOf(k), envelope.KindGroup, body, w.Group, MaxExpiry)
	}
	g.told[k] = g.roster.Epoch()
}

// groupWord takes an item of the kind group.
func (c *core) groupWord(from Sender, it *envelope.Item) {
	w, err := group.ParseWord(it.Body)
	if err != nil || w.Group != it.Group {
		c.count("group_words_bad")
		return
	}
	g := c.groups[w.Group]
	if g == nil {
		c.newGroup(from, w)
		return
	}
	before := g.roster.Epoch()
	lost, orphan := c.groupOps(g.roster, w)
	if !from.Own && !g.roster.Has(from.Account) && g.roster.Epoch() == before {
		c.count("group_words_of_strangers")
		return
	}
	news := g.roster.Epoch() != before
	if news {
		c.saveGroup(g)
		c.again(g, lost)
	}
	if w.More {
		return
	}
	c.answerGroup(g, from.Account, w, orphan)
	if news && len(w.Ops) > 0 && !sameHeads(w, g.roster) {
		// Two branches have met here first: the others may know neither.
		c.spread(g, from.Account)
	}
	if err := c.renewGroup(g); err != nil {
		c.count("group_renewals_failed")
	}
}

// groupBytes is what all rosters have.
func (c *core) groupBytes() (n int64) {
	for _, g := range c.groups {
		n += int64(g.roster.Size())
	}
	return n
}

// groupOps puts the changes of a word.
func (c *core) groupOps(r *group.Roster, w *group.Word) (lost []*group.Op, orphan bool) {
	if c.groupBytes()-int64(r.Size()) > c.cfg.Quota/groupShare {
		c.count("groups_full")
		return nil, false
	}
	failed := 0
	for _, raw := range w.Ops {
		_, l, err := r.Put(raw)
		lost = append(lost, l...)
		switch {
		case errors.Is(err, group.ErrOrphan):
			orphan = true
		case err != nil && !errors.Is(err, group.ErrStale):
			c.count("group_changes_refused")
		}
		if err != nil {
			if failed++; failed == maxFailed {
				return lost, orphan // each costs a check of a signature; what is true of the rest is asked for again
			}
		}
	}
	return lost, orphan
}

// newGroup takes the roster of a group that we are brought into: by a confirmed contact, or another device of ours.
func (c *core) newGroup(from Sender, w *group.Word) {
	if !from.Own && c.book.Standing(from.Account) != Confirmed {
		c.count("group_words_of_strangers")
		return
	}
	r := c.half[w.Group]
	if r == nil {
		r = &group.Roster{}
	}
	_, orphan := c.groupOps(r, w)
	switch {
	case r.Generation() > 0 && r.ID() != w.Group:
		c.count("group_words_bad")
		return
	case w.More && len(c.half) < maxHalf:
		c.half[w.Group] = r
		return
	}
	delete(c.half, w.Group)
	if orphan || r.Generation() == 0 || len(w.Ops) == 0 {
		ask := group.Word{Group: w.Group} // of which we have nothing: they send all
		c.say(c.accountOf(from.Account), envelope.KindGroup, ask.Append(nil), w.Group, DefaultExpiry)
		return
	}
	if !r.Has(c.account) || !from.Own && !r.Has(from.Account) {
		c.count("group_words_of_strangers")
		return
	}
	g, err := c.addGroup(r)
	if err != nil {
		c.count("groups_full")
		return
	}
	g.told[from.Account] = r.Epoch()
	c.tellMembers(g, nil, from.Account)
}

// answerGroup gives one whose heads differ what he lacks, and asks for what we lack.
func (c *core) answerGroup(g *groupLog, to key.Public, w *group.Word, orphan bool) {
	if sameHeads(w, g.roster) {
		g.told[to] = g.roster.Epoch()
		return
	}
	ops, unknown := g.roster.Lacking(w.Generation, w.Heads)
	if len(ops) == 0 && !unknown && !orphan {
		return
	}
	if !g.roster.Has(to) && to != c.account {
		ops = nil // he is none of us any more: he is asked, and told no more than that
		if !unknown && !orphan {
			return
		}
	}
	size := 0
	for _, o := range ops {
		size += len(o)
	}
	if size > largeAnswer {
		b := g.large[to]
		ok := b.pass(c.now, largeAnswers/3600.0, largeAnswers)
		if g.large[to] = b; !ok {
			c.count("group_answers_saved")
			return
		}
	}
	c.tellGroup(g, to, ops)
}

func sameHeads(w *group.Word, r *group.Roster) bool {
	heads := r.Heads()
	if w.Generation != r.Generation() || len(w.Heads) != len(heads) {
		return false
	}
	for i := range heads {
		if heads[i] != w.Heads[i] {
			return false
		}
	}
	return true
}

// spread tells the members what they were not told yet: the heads, by which they ask for what they lack.
func (c *core) spread(g *groupLog, but key.Public) {
	now := g.roster.Epoch()
	for _, m := range g.roster.Members() {
		if m.Account != but && m.Account != c.account && g.told[m.Account] != now {
			c.tellGroup(g, m.Account, nil)
		}
	}
	if but != c.account {
		c.tellGroup(g, c.account, nil)
	}
}

// again makes those of our changes anew that the founder had not seen when he began the present generation.
func (c *core) again(g *groupLog, lost []*group.Op) {
	for _, o := range lost {
		if o.Account != c.account || o.Device != c.self {
			continue
		}
		n := &group.Op{Kind: o.Kind, Target: o.Target, Place: o.Place, Name: o.Name}
		if err := c.groupChange(g, n); err != nil && !errors.Is(err, group.ErrForbidden) {
			c.count("group_changes_lost")
		}
	}
}

// introduce tells one who is about to hear us in a group how things stand, before that: one who does not know yet that we are in it
// would refuse us. If he was told nothing in this run he gets it all, where that is little.
func (c *core) introduce(g *groupLog, k key.Public) {
	told, any := g.told[k]
	if told == g.roster.Epoch() {
		return
	}
	ops := g.roster.Ops()
	size := 0
	for _, o := range ops {
		size += len(o)
	}
	if any || size > largeAnswer/2 {
		ops = nil
	}
	c.tellGroup(g, k, ops)
}

// groupTo are those who get what we say in a group now.
func (c *core) groupTo(g *groupLog) (to []key.Public) {
	for _, m := range g.roster.Members() {
		if m.Account == c.account {
			continue
		}
		if err := c.book.MaySendGroup(m.Account); err == nil || Waits(err) {
			to = append(to, m.Account)
		}
	}
	return to
}

// GroupMember is who is in a group.
type GroupMember struct {
	Account key.Public `json:"account"`
	Admin   bool       `json:"admin,omitempty"`
	Founder bool       `json:"founder,omitempty"`
	Self    bool       `json:"self,omitempty"`
}

// GroupInfo is how a group stands.
type GroupInfo struct {
	ID         envelope.GroupID
	Name       string
	Members    []GroupMember
	Epoch      string // equal for all who have the same changes
	Generation uint32
	Changes    int
	Member     bool // we are in it
	Admin      bool
}
