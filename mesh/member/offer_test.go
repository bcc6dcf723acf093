package member

import (
	"errors"
	"testing"
	"time"

	"skywire/mesh/key"
)

func TestOffer(t *testing.T) {
	t.Parallel()
	x, y, hash := identity(t, 3).Public(), identity(t, 4).Public(), [32]byte{7}
	fresh := func() *Offer { return &Offer{Secret: [16]byte{1}, Uses: 1, Life: time.Hour} }
	proof := func(o *Offer, k key.Public) [32]byte { return Proof(o.Secret, hash, k) }
	for name, c := range map[string]struct {
		edit  func(o *Offer)
		err   error
		state string
	}{
		"open":                     {func(*Offer) {}, nil, "open"},
		"used by another":          {func(o *Offer) { o.Joined = []key.Public{y} }, ErrOver, "used"},
		"used by the same":         {func(o *Offer) { o.Joined = []key.Public{x} }, nil, "used"},
		"expired":                  {func(o *Offer) { o.Elapsed = time.Hour }, ErrOver, "expired"},
		"expired, was in already":  {func(o *Offer) { o.Elapsed, o.Joined = time.Hour, []key.Public{x} }, nil, "used"},
		"closed by wrong proofs":   {func(o *Offer) { o.Wrong = maxWrong }, ErrOver, "closed"},
		"one wrong proof from end": {func(o *Offer) { o.Wrong = maxWrong - 1 }, nil, "open"},
	} {
		o := fresh()
		c.edit(o)
		if wrong, err := o.Check(hash, x, proof(o, x)); !errors.Is(err, c.err) || wrong || o.State() != c.state {
			t.Errorf("%s: %v, wrong %v, %s; want %v, %s", name, err, wrong, o.State(), c.err, c.state)
		}
	}
	o := fresh()
	for i := range maxWrong {
		if wrong, err := o.Check(hash, x, proof(o, y)); !wrong || !errors.Is(err, ErrProof) {
			t.Fatalf("wrong proof %d: %v", i, err)
		}
	}
	if _, err := o.Check(hash, x, proof(o, x)); !errors.Is(err, ErrOver) || o.State() != "closed" {
		t.Errorf("the right proof after %d wrong ones: %v", maxWrong, err)
	}
}
