package messenger

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"skywire/mesh/key"
)

// load reads all but queues and history into memory. It is also what puts things right after the disk refused a write.
func (c *core) load() error {
	c.accounts, c.accByNo = map[key.Public]*account{}, map[uint32]*account{}
	c.devices, c.devByNo = map[key.Public]*device{}, map[uint32]*device{}
	c.errands, c.seen, c.dials = map[*device]map[*device]bool{}, map[*account]time.Time{}, 0
	c.busy, c.effects, c.files = map[*device]bool{}, nil, map[uint64]*transfer{}
	c.handing = map[*account]bool{}
	c.urgent, c.lazy, c.card, c.rawCard = false, false, nil, nil
	c.next = numbers{Account: 1, Device: 1, Message: 1, Other: 1}
	if v := c.db.get(bMeta, []byte("numbers")); v != nil {
		if err := json.Unmarshal(v, &c.next); err != nil {
			return err
		}
	}
	c.loadBook()
	for _, e := range c.all(bAcc) {
		var r accountRecord
		if json.Unmarshal(e.value, &r) != nil || len(e.key) != 4 {
			continue
		}
		a := &account{number: binary.BigEndian.Uint32(e.key), key: r.Key, place: r.Place}
		a.waiting = len(c.db.list(bWait, e.key, after(e.key), 1, false)) > 0
		c.accounts[a.key], c.accByNo[a.number] = a, a
		c.next.Account = max(c.next.Account, a.number+1)
	}
	for _, e := range c.all(bDev) {
		var r deviceRecord
		if json.Unmarshal(e.value, &r) != nil || len(e.key) != 4 {
			continue
		}
		d := &device{number: binary.BigEndian.Uint32(e.key), key: r.Key, rec: r, account: c.accByNo[r.Account]}
		if d.account != nil {
			d.account.devices = append(d.account.devices, d)
		}
		c.devices[d.key], c.devByNo[d.number] = d, d
		c.next.Device = max(c.next.Device, d.number+1)
	}
	c.loadStreams()
	c.loadBox()
	c.loadFiles()
	c.loadAuthorities()
	c.loadGroups()
	return c.renew()
}

// all lists a bucket.
func (c *core) all(bucket string) []entry { return c.db.list(bucket, nil, nil, 1<<30, false) }

func (c *core) loadStreams() {
	for _, e := range c.all(bOut) {
		if d, s := c.streamOf(e.key); d != nil {
			o := &d.out[s]
			if json.Unmarshal(e.value, o) == nil {
				o.cursor = o.Floor
			}
		}
	}
	for _, e := range c.all(bIn) {
		if d, s := c.streamOf(e.key); d != nil {
			_ = json.Unmarshal(e.value, &d.in[s])
		}
	}
	for _, e := range c.all(bEarly) {
		if len(e.key) != 13 {
			continue
		}
		if d, s := c.streamOf(e.key[:5]); d != nil {
			d.in[s].note(binary.BigEndian.Uint64(e.key[5:]), len(e.value))
		}
	}
	for _, d := range c.devByNo {
		for s := range d.out {
			if d.out[s].Epoch == 0 {
				d.out[s] = outStream{Epoch: c.epoch(), Next: 1, Floor: 1, Boxed: 1, cursor: 1}
			}
			if d.out[s].Floor < d.out[s].Next {
				c.busy[d] = true
			}
			if d.in[s].Owed {
				c.owe(d)
			}
		}
	}
}

func (c *core) streamOf(k []byte) (*device, uint8) {
	if len(k) != 5 || k[4] >= streams {
		return nil, 0
	}
	return c.devByNo[binary.BigEndian.Uint32(k)], k[4]
}

// put stages what effects rest on; later what may wait.
func (c *core) put(bucket string, k, v []byte) { c.urgent = true; c.db.put(bucket, k, v) }

func (c *core) later(bucket string, k, v []byte) { c.lazy = true; c.db.put(bucket, k, v) }

func (c *core) drop(bucket string, k []byte) { c.lazy = true; c.db.delete(bucket, k) }

func encode(v any) []byte { return appendJSON(nil, v) }

func (c *core) saveNumbers() { c.put(bMeta, []byte("numbers"), encode(c.next)) }

func (c *core) saveDevice(d *device) { c.put(bDev, be32(d.number), encode(d.rec)) }

func (c *core) saveOut(d *device, s uint8) {
	c.put(bOut, streamKey(d.number, s), encode(d.out[s]))
}

func (c *core) saveIn(d *device, s uint8) {
	c.put(bIn, streamKey(d.number, s), encode(d.in[s]))
}

func (c *core) saveAccount(a *account) {
	r := accountRecord{Key: a.key, Place: a.place}
	if a.auth != nil {
		r.Floor = a.auth.Floor()
	}
	c.put(bAcc, be32(a.number), encode(r))
}
