package api

import (
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream"
)

// sharer is who shares what: a peer at a service.
type sharer struct {
	service string
	peer    key.Public
}

// share is a peer's part of a service, while it has streams there.
type share struct {
	*stream.Share
	rate    uint64
	streams int
}

// maxIdle bounds what a verdict can ask for, in seconds: a year and more.
const maxIdle = 1 << 25

// limit puts the limits of a verdict on a stream. All streams of a peer at a service have one share; one that is given
// another rate begins a new one, which those after it join. The caller calls release when the stream has ended.
func (r *registry) limit(sv *service, st carried, v app.Verdict) (release func()) {
	s, ok := st.(*stream.Stream) // what flows carry is dropped by the app that has them
	if !ok || v.Rate == 0 && v.Idle <= 0 {
		return func() {}
	}
	l := stream.Limits{Idle: time.Duration(min(max(v.Idle, 0), maxIdle)) * time.Second}
	if v.Rate == 0 {
		s.Limit(l)
		return func() {}
	}
	who := sharer{sv.Name, st.Peer()}
	r.mu.Lock()
	defer r.mu.Unlock()
	sh := r.shares[who]
	if sh == nil || sh.rate != v.Rate {
		sh = &share{Share: stream.NewShare(v.Rate), rate: v.Rate}
		r.shares[who] = sh
	}
	sh.streams++
	l.Share = sh.Share
	s.Limit(l)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if sh.streams--; sh.streams == 0 && r.shares[who] == sh {
			delete(r.shares, who)
		}
	}
}
