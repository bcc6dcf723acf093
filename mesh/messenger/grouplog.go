package messenger

import (
	"encoding/binary"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/group"
)

// bGroup holds rosters: group 8 │ n 4 → change as signed, in an order that has parents first; group 8 │ all ones → groupRecord.
const bGroup = "group"

type groupRecord struct {
	ID envelope.GroupID `json:"id"`
}

// groupLog is a group that we are in, or were.
type groupLog struct {
	no     uint64
	roster *group.Roster
	stored int                        // changes in the store
	told   map[key.Public]group.Epoch // what members have been told, or told us
	large  map[key.Public]bucketOfTokens
}

func groupKey(no uint64, n uint32) []byte { return binary.BigEndian.AppendUint32(be64(no), n) }

const groupHead = ^uint32(0)

// loadGroups reads the rosters, and makes their members known to the book.
func (c *core) loadGroups() {
	c.groups, c.half = map[envelope.GroupID]*groupLog{}, map[envelope.GroupID]*group.Roster{}
	byNo := map[uint64]*groupLog{}
	for _, e := range c.all(bGroup) {
		if len(e.key) != 12 {
			continue
		}
		no, n := binary.BigEndian.Uint64(e.key), binary.BigEndian.Uint32(e.key[8:])
		g := byNo[no]
		if g == nil {
			g = newGroupLog(no)
			byNo[no] = g
		}
		if n == groupHead {
			continue
		}
		if _, _, err := g.roster.Put(e.value); err != nil {
			c.count("group_changes_unreadable")
		}
		g.stored++
	}
	for _, g := range byNo {
		if g.roster.Generation() > 0 {
			c.groups[g.roster.ID()] = g
		}
	}
	c.gate = c.groupGate
	c.mates()
}

func newGroupLog(no uint64) *groupLog {
	return &groupLog{no: no, roster: &group.Roster{}, told: map[key.Public]group.Epoch{}, large: map[key.Public]bucketOfTokens{}}
}

// mates tells the book who is in a group of ours. Of one that we have left too: that we left is still to be told.
func (c *core) mates() {
	now := map[key.Public]bool{}
	for _, g := range c.groups {
		for _, m := range g.roster.Members() {
			if m.Account != c.account {
				now[m.Account] = true
			}
		}
	}
	for k := range c.mateKeys {
		if !now[k] {
			c.book.Mate(k, false)
		}
	}
	for k := range now {
		c.book.Mate(k, true)
	}
	c.mateKeys = now
}

// groupGate says whether a text is of a member, to a member.
func (c *core) groupGate(from Sender, it *envelope.Item) Verdict {
	g := c.groups[it.Group]
	if g == nil || !g.roster.Has(c.account) || !g.roster.Has(from.Account) {
		return Drop
	}
	return Take
}

// author signs in our name.
func (c *core) author() group.Author {
	a := group.Author{Account: c.account, Key: c.cfg.Key}
	if c.account != c.self {
		a.Statements = c.card.Statements
	}
	return a
}

// saveGroup stages what a roster has that the store has not.
func (c *core) saveGroup(g *groupLog) {
	ops := g.roster.Ops()
	if len(ops) < g.stored || g.stored == 0 { // a new generation, or a new group
		for _, e := range c.db.list(bGroup, groupKey(g.no, 0), groupKey(g.no, groupHead), 1<<20, false) {
			c.drop(bGroup, e.key)
		}
		g.stored = 0
		c.put(bGroup, groupKey(g.no, groupHead), encode(groupRecord{g.roster.ID()}))
	}
	for i := g.stored; i < len(ops); i++ {
		c.put(bGroup, groupKey(g.no, uint32(i)), ops[i])
	}
	g.stored = len(ops)
	c.mates()
	for _, m := range g.roster.Members() {
		if m.Account != c.account {
			c.meet(m.Account, m.Place)
		}
	}
	c.change()
}

// addGroup makes room for one more group and holds it.
func (c *core) addGroup(r *group.Roster) (*groupLog, error) {
	if len(c.groups) >= MaxGroups {
		for id, g := range c.groups {
			if !g.roster.Has(c.account) {
				c.dropGroup(id)
				break
			}
		}
	}
	if len(c.groups) >= MaxGroups {
		return nil, ErrGroupsFull
	}
	g := newGroupLog(c.number())
	g.roster = r
	c.groups[r.ID()] = g
	c.saveGroup(g)
	return g, nil
}

func (c *core) dropGroup(id envelope.GroupID) {
	g := c.groups[id]
	for _, e := range c.db.list(bGroup, groupKey(g.no, 0), append(groupKey(g.no, groupHead), 0), 1<<20, false) {
		c.drop(bGroup, e.key)
	}
	delete(c.groups, id)
}
