//go:build web || !(mips || mipsle || mini)

package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	cookie     = "skywire"
	header     = "X-Skywire-Token"
	inviteLife = 10 * time.Minute
	maxInvites = 16
	maxSession = 32
	idleLife   = 12 * time.Hour
	// loginEvery is how often a login is tried at most, once loginBurst in a row were: 128 bits are not guessed, but the
	// log would fill.
	loginEvery = time.Second
	loginBurst = 5
)

var (
	errToken = errors.New("this link was used already or is too old: viscript web prints a new one")
	errOften = errors.New("too many logins, wait a moment")
)

// gate knows who is logged in. Tokens are kept as hashes.
type gate struct {
	hosts []string // exact values of Host
	now   func() time.Time

	mu       *sync.Mutex            // guards what follows
	invites  map[[32]byte]time.Time // until when
	sessions map[[32]byte]*logged   // by the hash of the cookie
	tries    float64                // logins that may be tried now
	triedAt  time.Time
}

type logged struct {
	second [32]byte // hash of what calls show
	seen   time.Time
}

func newGate(now func() time.Time) gate {
	return gate{
		now: now, mu: &sync.Mutex{}, invites: map[[32]byte]time.Time{}, sessions: map[[32]byte]*logged{},
		tries: loginBurst, triedAt: now(),
	}
}

// invite makes a token for one login.
func (g *gate) invite() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	for h, until := range g.invites {
		if now.After(until) || len(g.invites) >= maxInvites {
			delete(g.invites, h)
		}
	}
	token := rand.Text()
	g.invites[sha256.Sum256([]byte(token))] = now.Add(inviteLife)
	return token
}

// enter spends a token.
func (g *gate) enter(token string) (session, second string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	g.tries = min(loginBurst, g.tries+float64(now.Sub(g.triedAt))/float64(loginEvery))
	g.triedAt = now
	if g.tries < 1 {
		return "", "", errOften
	}
	g.tries--
	h := sha256.Sum256([]byte(token)) // the map is keyed by hashes: how long a look takes tells nothing of the token
	until, ok := g.invites[h]
	delete(g.invites, h)
	if !ok || now.After(until) {
		return "", "", errToken
	}
	for len(g.sessions) >= maxSession {
		var oldest [32]byte
		for k, l := range g.sessions {
			if o := g.sessions[oldest]; o == nil || l.seen.Before(o.seen) {
				oldest = k
			}
		}
		delete(g.sessions, oldest)
	}
	session, second = rand.Text(), rand.Text()
	g.sessions[sha256.Sum256([]byte(session))] = &logged{second: sha256.Sum256([]byte(second)), seen: now}
	return session, second, nil
}

// admits looks at the cookie of a request, and for one that does something at the second token.
func (g *gate) admits(r *http.Request, does bool) bool {
	c, err := r.Cookie(cookie)
	if err != nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	k := sha256.Sum256([]byte(c.Value))
	l := g.sessions[k]
	if l == nil {
		return false
	}
	now := g.now()
	if now.Sub(l.seen) > idleLife {
		delete(g.sessions, k)
		return false
	}
	if does {
		shown := sha256.Sum256([]byte(r.Header.Get(header)))
		if subtle.ConstantTimeCompare(shown[:], l.second[:]) != 1 {
			return false
		}
	}
	l.seen = now
	return true
}
