package link

import "time"

// What an outage of a second leaves in the measured loss of a link would stay there: traffic goes elsewhere, and the few pings of an
// idle link outweigh it only after many minutes. So a link that looks lossy and is idle gets a train of frames that say nothing but
// their number (Measure); if it is good again, two or three trains show it, and if it is not, they show that too.
const (
	doubtLoss  = 0.001 // share lost on the way there, from which it is worth asking: it weighs as much as 2 ms
	doubtTrain = 64    // frames, about 4 kB
	doubtPace  = 10 * time.Millisecond
	doubtFirst = 3 * time.Second // after the last data
	doubtMost  = 10 * time.Minute
)

// doubt is the asking about one link.
type doubt struct {
	pause time.Duration // before the next train; 0: the link is not in doubt
	at    time.Duration // of the next train or frame
	left  int           // frames of this train
}

// tickDoubt sends the trains.
func (s *Links) tickDoubt(now time.Duration, l *Link) time.Duration {
	d := &l.doubt
	if s.busy(now, l) || l.restless != 0 || l.ping.lost > 0 || now < l.life.silence || l.LossOut() < doubtLoss && d.left == 0 {
		*d = doubt{}
		return now + time.Second
	}
	if d.pause == 0 {
		d.pause, d.at = doubtFirst, now+doubtFirst
	}
	if now < d.at {
		return d.at
	}
	if d.left == 0 {
		d.left = doubtTrain
	}
	if d.left--; d.left > 0 {
		s.plain = s.appendMeasure(l, s.plain[:0])
		_ = s.seal(now, l, l.endpoint)
		if d.at = now + doubtPace; l.Slow() {
			d.at = now + max(doubtPace, l.ping.srtt/2) // it would fill the line for seconds
		}
		return d.at
	}
	if l.ping.sent == 0 {
		s.sendPing(now, l) // its answer tells what came
	}
	d.pause = min(2*d.pause, doubtMost)
	d.at = now + d.pause
	return d.at
}
