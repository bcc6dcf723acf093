package node

import (
	"fmt"
	"testing"
	"time"

	"skywire/mesh/key"
)

// White-box: the bounds of rings that peers can fill can't be seen from outside.

func TestEventRing(t *testing.T) {
	t.Parallel()
	var r eventRing
	if got := r.after(0, 10); len(got) != 0 || r.missed(0) != 0 {
		t.Errorf("of an empty ring %v", got)
	}
	r.add(Event{Kind: EventLinkDown, Cause: "first"})
	for i := range 3 * maxNewsEvents {
		r.add(Event{Kind: EventNodeKnown, What: fmt.Sprint(i)})
	}
	all := r.after(0, 1000)
	if len(all) != 1+maxNewsEvents || all[0].Cause != "first" {
		t.Errorf("%d events, the first %+v: news must not push out what is ours", len(all), all[0])
	}
	for i := 1; i < len(all); i++ {
		if all[i].Seq <= all[i-1].Seq {
			t.Fatal("not in order")
		}
	}
	if got := r.missed(1); got != 2*maxNewsEvents {
		t.Errorf("%d missed, want %d", got, 2*maxNewsEvents)
	}
	last := r.after(0, 5)
	if len(last) != 5 || last[4].Seq != r.seq {
		t.Errorf("the last five: %+v", last)
	}
	next := r.after(all[0].Seq, 5)
	if len(next) != 5 || next[0].Seq != all[1].Seq {
		t.Errorf("five after the first: %+v", next)
	}
	for range 2 * maxEvents {
		r.add(Event{Kind: EventPathUsed})
	}
	if len(r.own) != maxEvents || r.after(0, 1)[0].Seq != r.seq {
		t.Errorf("%d events of our own, want %d", len(r.own), maxEvents)
	}
}

func TestFollowersAreWoken(t *testing.T) {
	t.Parallel()
	var r eventRing
	a, b := r.wait(), r.wait()
	select {
	case <-a:
		t.Error("woken by nothing")
	default:
	}
	r.add(Event{Kind: EventManager})
	<-a
	<-b
}

func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	n := &Core{attempts: map[key.Public]*attempted{}}
	peer := func(i int) (k key.Public) {
		k[0], k[1] = byte(i), byte(i>>8)
		return k
	}
	for i := range 2 * maxAttempted {
		n.Tried(time.Duration(i)*time.Second, peer(i), Attempt{Carrier: "udp", Address: "192.0.2.1:1"})
	}
	if len(n.attempts) > maxAttempted {
		t.Errorf("of %d nodes", len(n.attempts))
	}
	now := 2 * maxAttempted * time.Second
	k := peer(2*maxAttempted - 1)
	for i := range 3 * maxAttempts {
		n.Tried(now, k, Attempt{Carrier: "udp", Address: fmt.Sprint(i)})
	}
	if got := n.attemptsTo(now, k); len(got) != maxAttempts {
		t.Errorf("%d tries remembered, want %d", len(got), maxAttempts)
	}
	a := Attempt{Carrier: "tcp", Address: "192.0.2.1:443", Way: "dial"}
	n.Tried(now, k, a)
	a.Result = "refused"
	n.Tried(now, k, a)
	if got := n.attemptsTo(now, k); got[len(got)-1].Result != "refused" || got[len(got)-2].Carrier == "tcp" {
		t.Errorf("a result does not take the place of its try: %+v", got)
	}
	if got := n.attemptsTo(now+2*attemptRemembered, k); len(got) != 0 {
		t.Errorf("tries of an hour ago: %+v", got)
	}
}
