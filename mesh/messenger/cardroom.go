package messenger

// cardRoom tells whether there is room for the card of a device that has none here. Cards and their statements take three quarters of
// the store at most, and second devices are taken up to a half, so that nobody fills it with devices. A newer card of a device that is
// known always finds room.
func (c *core) cardRoom(a *account, d *device, n int) bool {
	if a.key == c.account || d != nil && d.rec.Card != 0 {
		return true
	}
	most := c.cfg.Quota / 2
	first := true
	for _, x := range a.devices {
		first = first && x.rec.Card == 0
	}
	if first {
		most = c.cfg.Quota / 4 * 3
	}
	over := c.db.kv.Size(bCard) + c.db.kv.Size(bAuth) + int64(n) - most
	return over <= 0 || c.forgetCards(over) >= over
}

// forgetCards drops cards of those who are no contacts any more and with whom nothing is under way, until so many bytes are free. They
// bring them again when they are met.
func (c *core) forgetCards(want int64) (freed int64) {
	for _, d := range c.devices {
		if freed >= want {
			break
		}
		if d.rec.Card == 0 || d.account == nil || d.account.key == c.account || d.link != nil || d.kept > 0 || c.stays(d) || !c.idle(d) {
			continue
		}
		switch c.book.Standing(d.account.key) {
		case Stranger, Blocked:
		default:
			continue
		}
		if c.book.mates[d.account.key] {
			continue
		}
		freed += int64(len(c.db.get(bCard, be32(d.number))))
		c.drop(bCard, be32(d.number))
		d.rec.Card = 0
		c.saveDevice(d)
	}
	return freed
}
