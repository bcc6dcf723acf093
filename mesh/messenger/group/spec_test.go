package group

import (
	"flag"
	"fmt"
	"testing"

	"skywire/mesh/messenger/envelope"
	"skywire/mesh/spectest"
)

var update = flag.Bool("update", false, "write the vectors into SPEC.md")

func vectors(t *testing.T) *spectest.Vectors {
	t.Helper()
	v := &spectest.Vectors{}
	one, two, three := author(t, 1), author(t, 2), author(t, 3)
	o := &Op{
		Kind: Found, Name: "hikers", Nonce: [16]byte{0xaa}, Generation: 1, Time: 1795392000,
		Account: one.Account, Device: one.Account, Seats: []Seat{{Account: one.Account, Admin: true}, {Account: two.Account}},
	}
	o.Group = groupID(one.Account, o.Nonce)
	raw, err := o.Sign(one.Key)
	if err != nil {
		t.Fatal(err)
	}
	r := &Roster{}
	if _, _, err := r.Put(raw); err != nil {
		t.Fatal(err)
	}
	v.Line("founding by the device of seed 01 00…, nonce aa00…, with the member of seed 02 00…", raw)
	add, err := r.Sign(one, 1795392001, &Op{Kind: Add, Target: three.Account, Place: envelope.Place{Cluster: three.Account}})
	if err != nil {
		t.Fatal(err)
	}
	v.Line("adding the account of seed 03 00…, met in the cluster that it is", add)
	id := r.Heads()[0]
	v.Line("its id, the head", id[:])
	w := Word{Group: r.ID(), Generation: 1, Heads: r.Heads()}
	v.Line("word with that head", w.Append(nil))
	e := r.Epoch()
	v.Line("epoch", e[:])
	return v
}

func TestVectors(t *testing.T) {
	t.Parallel()
	vectors(t).Compare(t, *update)
}

func TestSpecStatesTheLimits(t *testing.T) {
	t.Parallel()
	spectest.Says(t,
		fmt.Sprintf("parents 1 (≤ %d)", MaxParents), fmt.Sprintf("statements 1 (≤ %d)", maxStatements), fmt.Sprintf("At most %d bytes", MaxOp),
		fmt.Sprintf("seats 1 (≤ %d)", MaxMembers), fmt.Sprintf("(≤ %d in all)", MaxAdmins), fmt.Sprintf("At most %d of a generation", MaxOps),
		fmt.Sprintf("%d of one account", MaxPerAccount), fmt.Sprintf("%d bytes beside the founding", MaxBytes), fmt.Sprintf("heads 1 (≤ %d)", MaxHeads), fmt.Sprintf("item of kind %d", envelope.KindGroup),
		"1 found", "2 add", "3 remove, 4 promote, 5 demote", "6 leave", "7 rename", "`roster`",
	)
}
