package forward

import "time"

// pauseIfFull stops reading the TUNs when the backlog has its fill of them, or a socket without one took no more: the rest
// belongs in the device, where the kernel drops.
func (l *Loop) pauseIfFull() {
	stuck := l.worker.takeFull()
	if !stuck && !l.worker.backlog.full(false) || l.paused || len(l.tuns) == 0 || len(l.c.Own) == 0 {
		return
	}
	l.paused, l.stuck = true, stuck
	l.interest()
}

// resume goes on with what waited for a socket that takes more.
func (l *Loop) resume(now time.Duration, id int) {
	l.worker.backlog.drain(now, id)
	if !l.worker.backlog.full(true) {
		l.unpause()
	}
}

func (l *Loop) unpause() {
	if l.paused {
		l.paused, l.stuck = false, false
		l.interest()
	}
}

func (l *Loop) interest() {
	for _, q := range l.tuns {
		if !q.write {
			_ = l.c.Poller.Interest(q.id, q.tun, !l.paused, false)
		}
	}
	for _, i := range l.c.Own {
		l.watchSocket(i)
	}
}

// watchSocket has the poller say when a socket can be written, where something waits for that.
func (l *Loop) watchSocket(i int) {
	_ = l.c.Poller.Interest(i, l.c.Sockets[i], true, l.stuck || l.worker.backlog.waits(i))
}
