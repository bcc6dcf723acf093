package supervisor

import "sync"

// Chunk is a piece of an app's raw output.
type Chunk struct {
	Stream string
	Data   []byte
}

// Subscriber gets an app's raw output. The app waits for it: an attached terminal that does not read holds the app
// back, as any terminal would; Leave frees it.
type Subscriber struct {
	C    chan Chunk // closed never; see Done
	Done chan struct{}
	once sync.Once
}

// NewSubscriber returns a Subscriber that holds a few chunks.
func NewSubscriber() *Subscriber {
	return &Subscriber{C: make(chan Chunk, 16), Done: make(chan struct{})}
}

// Leave ends the subscription.
func (s *Subscriber) Leave() { s.once.Do(func() { close(s.Done) }) }

// tailBytes is how much of a terminal's output somebody who attaches gets to see.
const tailBytes = 4 << 10

// tap gives raw output to subscribers.
type tap struct {
	mu    sync.Mutex // guards the fields below
	subs  []*Subscriber
	ended bool
	over  chan struct{}
	tail  []byte // of a terminal: what a person who comes back sees first
	keep  bool
}

func newTap(first *Subscriber) *tap {
	t := &tap{over: make(chan struct{})}
	if first != nil {
		t.subs = []*Subscriber{first}
	}
	return t
}

func (t *tap) add(s *Subscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs = append(t.subs, s)
	if len(t.tail) > 0 {
		s.C <- Chunk{streamOut, append([]byte(nil), t.tail...)} // a new one has room
	}
}

// remember has the end of the output kept for whoever attaches.
func (t *tap) remember() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep = true
}

// write hands b to everyone; b stays the caller's.
func (t *tap) write(stream string, b []byte) {
	t.mu.Lock()
	subs := t.subs
	if t.keep {
		t.tail = append(t.tail, b...)
		t.tail = append(t.tail[:0], t.tail[max(0, len(t.tail)-tailBytes):]...)
	}
	t.mu.Unlock()
	gone := false
	for _, s := range subs {
		select {
		case s.C <- Chunk{stream, append([]byte(nil), b...)}:
		case <-s.Done:
			gone = true
		}
	}
	if !gone {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var stay []*Subscriber
	for _, s := range t.subs {
		select {
		case <-s.Done:
		default:
			stay = append(stay, s)
		}
	}
	t.subs = stay
}

// end says that no output will come any more.
func (t *tap) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended = true
		close(t.over)
	}
}
