package member

import (
	"testing"
	"time"
)

const days = 24 * 3600

func wall(date string) time.Time {
	t, err := time.Parse(time.DateOnly, date)
	if err != nil {
		panic(err)
	}
	return t
}

// The clock of protocol C9, a row for each rule.
func TestClock(t *testing.T) {
	t.Parallel()
	y1970, y2099, right := wall("1970-01-01"), wall("2099-06-01"), time.Unix(Epoch, 0).Add(10*days*time.Second)
	for name, c := range map[string]struct {
		wall   time.Time
		signed []int64 // after the epoch, in days
		up     int64   // days until asked
		floor  int64   // days
		now    time.Time
		state  ClockState
	}{
		"nothing signed, 1970":             {y1970, nil, 3, 0, time.Unix(Epoch+3*days, 0), ClockBehind},
		"nothing signed, 2099":             {y2099, nil, 3, 0, y2099, ClockUnconfirmed},
		"signed, right":                    {right, []int64{9}, 0, 9, right, ClockConfirmed},
		"signed, 1970":                     {y1970, []int64{9, 5}, 2, 9, time.Unix(Epoch+11*days, 0), ClockBehind},
		"signed, 2099: not confirmed":      {y2099, []int64{9}, 2, 9, y2099, ClockUnconfirmed},
		"too long ago to confirm":          {right.Add(40 * days * time.Second), []int64{9}, 0, 9, right.Add(40 * days * time.Second), ClockUnconfirmed},
		"a jump of 399 days, 1970":         {y1970, []int64{399}, 0, 399, time.Unix(Epoch+399*days, 0), ClockBehind},
		"a jump of 401 days, 1970":         {y1970, []int64{401}, 0, 0, time.Unix(Epoch, 0), ClockBehind},
		"jumps in a row, 1970":             {y1970, []int64{300, 600, 900}, 0, 300, time.Unix(Epoch+300*days, 0), ClockBehind},
		"jumps in a row, backwards":        {y1970, []int64{900, 600, 300}, 0, 300, time.Unix(Epoch+300*days, 0), ClockBehind},
		"a jump of 401 days, clock agrees": {time.Unix(Epoch+402*days, 0), []int64{401}, 0, 401, time.Unix(Epoch+402*days, 0), ClockConfirmed},
		"a jump of 401 days, 2099":         {y2099, []int64{401}, 0, 401, y2099, ClockUnconfirmed},
	} {
		begin := Instant{Wall: c.wall}
		k := newClock(0, begin)
		for _, d := range c.signed {
			k.hear(begin, Epoch+d*days)
		}
		end := Instant{Up: time.Duration(c.up) * 24 * time.Hour, Wall: c.wall}
		if k.floor != Epoch+c.floor*days || k.now(end) != c.now.Unix() || k.state(end) != c.state {
			t.Errorf("%s: floor %d days, now %v, %s; want %d, %v, %s", name,
				(k.floor-Epoch)/days, time.Unix(k.now(end), 0).UTC(), k.state(end), c.floor, c.now.UTC(), c.state)
		}
	}
}

// A box without a clock never goes back in time, and a restart begins at the stored floor.
func TestClockCounts(t *testing.T) {
	t.Parallel()
	k := newClock(Epoch+5*days, Instant{})
	week := Instant{Up: 7 * 24 * time.Hour}
	if got := k.now(week); got != Epoch+12*days {
		t.Errorf("after a week: %d days", (got-Epoch)/days)
	}
	k.hear(week, Epoch+6*days) // less than what has been counted already
	if got := k.now(week); got != Epoch+12*days || k.floor != Epoch+6*days {
		t.Errorf("after an old word: %d days, floor %d", (got-Epoch)/days, (k.floor-Epoch)/days)
	}
	k.hear(week, Epoch+30*days)
	if got := k.now(Instant{Up: 8 * 24 * time.Hour}); got != Epoch+31*days {
		t.Errorf("a day after a new word: %d days", (got-Epoch)/days)
	}
}

// Nobody is ever locked out: who ran out is a guest, and may renew; and where nobody signs any more, nobody runs out.
func TestNoLockOut(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a, x := identity(t, 2), identity(t, 3).Public()
	for name, w := range map[string]time.Time{"1970": wall("1970-01-01"), "2099": wall("2099-06-01"), "right": time.Unix(Epoch, 0)} {
		s := g.state()
		put(t, s, g.list(1, full(a)), g.cert(a, x, 0, nil))
		for d := range 2000 {
			up := time.Duration(d) * 24 * time.Hour
			if m := s.Member(Instant{Up: up, Wall: w.Add(up)}, x); m.Rights != Member {
				t.Errorf("%s: the issuer is dead for %d days: %+v", name, d, m)
				break
			}
		}
		// The issuer lives, and x was away for 200 days: expired, a guest, and a member again after renewal.
		put(t, s, g.tell(a, 200*24*time.Hour))
		now := Instant{Up: 200 * 24 * time.Hour, Wall: w.Add(200 * 24 * time.Hour)}
		if m := s.Member(now, x); m.Rights != Guest || !m.Expired || !s.RenewDue(now, x) {
			t.Errorf("%s: away for 200 days: %+v", name, m)
		}
		put(t, s, g.cert(a, x, 200*24*time.Hour, nil))
		if m := s.Member(now, x); m.Rights != Member {
			t.Errorf("%s: renewed: %+v", name, m)
		}
	}
}

// A running node renews from half of its life, so the death of its issuer at any time leaves it a member: what a signed
// time confirms for 30 days is less than what is left of any certificate by then.
func TestIssuerDiesAnyDay(t *testing.T) {
	t.Parallel()
	if DefaultLife/2 <= confirmed*time.Second {
		t.Errorf("half of a life is %v, a clock is confirmed for %v", DefaultLife/2, confirmed*time.Second)
	}
}

func TestRenewDue(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a, x := identity(t, 2), identity(t, 3).Public()
	s := g.state()
	put(t, s, g.list(1, full(a)), g.cert(a, x, 0, nil))
	if s.RenewDue(at(DefaultLife/2-time.Hour), x) || !s.RenewDue(at(DefaultLife/2+time.Hour), x) || s.RenewDue(at(DefaultLife), identity(t, 4).Public()) {
		t.Error("renewal is due at half of the life, for who has a certificate")
	}
	if end := s.NextExpiry(at(0)); end != Epoch+int64(DefaultLife/time.Second) {
		t.Errorf("next expiry %d", end-Epoch)
	}
}

func TestStampIsSober(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	s := g.state()
	if got := s.Stamp(Instant{Up: time.Hour, Wall: wall("2099-06-01")}); got != Epoch+3600 {
		t.Errorf("a manager in 2099 signs %v", time.Unix(got, 0).UTC())
	}
	if got := s.Stamp(Instant{Up: time.Hour, Wall: wall("1970-01-01")}); got != Epoch+3600 {
		t.Errorf("a manager in 1970 signs %v", time.Unix(got, 0).UTC())
	}
	if got := s.Stamp(at(50 * time.Hour)); got != Epoch+50*3600 {
		t.Errorf("a manager with a clock signs %v", time.Unix(got, 0).UTC())
	}
}
