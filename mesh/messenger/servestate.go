package messenger

import (
	"context"
	"encoding/json"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// DaemonStatus is messenger.status.
type DaemonStatus struct {
	Status
	Kind      string `json:"kind"` // of the account: self or cluster
	Node      bool   `json:"node"` // the node of this box is there
	Strangers string `json:"strangers"`
	// HooksDropped are events for which no hook was free, HooksFailed the runs of hooks that failed.
	HooksDropped uint64 `json:"hooks_dropped"`
	HooksFailed  uint64 `json:"hooks_failed"`
	// Kept are statements of ledgers that came and that no app here reads.
	Kept int `json:"statements"`
}

func (s *Server) status(context.Context, struct{}) (any, error) {
	d := DaemonStatus{Status: s.c.Engine.Status()}
	if d.Counters == nil {
		d.Counters = map[string]uint64{}
	}
	err := s.c.Engine.Book(func(b *Book, _ time.Time) error {
		for why, n := range b.Drops() {
			d.Counters["dropped_"+string(why)] = n
		}
		return nil
	})
	if s.c.Daemon != nil {
		s.c.Daemon(&d)
	}
	return d, err
}

// DeviceInfo is a device as the socket shows it.
type DeviceInfo struct {
	Device
	Contact string `json:"contact,omitempty"` // our name for the account
	Own     bool   `json:"own,omitempty"`     // of our account
	Self    bool   `json:"self,omitempty"`    // this one
	Online  bool   `json:"online"`
}

func (s *Server) devices(context.Context, struct{}) (any, error) {
	st := s.c.Engine.Status()
	list := []DeviceInfo{{Device: Device{Account: st.Account, Device: st.Device, Card: st.Card, Linked: true}, Own: true, Self: true, Online: true}}
	all := s.c.Engine.Devices(key.Public{})
	err := s.c.Engine.Book(func(b *Book, _ time.Time) error {
		for _, d := range all {
			if d.Device == st.Device {
				continue
			}
			c, _ := b.Get(d.Account) // of nobody who is a contact: no name
			i := DeviceInfo{Device: d, Contact: c.Name, Own: d.Account == st.Account, Online: d.Linked}
			if s.c.Presence != nil && !d.Linked {
				i.Online, _ = s.c.Presence.Of(d.Device)
			}
			list = append(list, i)
		}
		return nil
	})
	return list, err
}

// ImportParams is messenger.import: contacts, messages and files as their lists have shown them, groups as group.export.
type ImportParams struct {
	Contacts []json.RawMessage `json:"contacts,omitempty"`
	Messages []json.RawMessage `json:"messages,omitempty"`
	Files    []json.RawMessage `json:"files,omitempty"`
	Groups   []ExportedGroup   `json:"groups,omitempty"`
}

// ExportedGroup is a group as its signed changes.
type ExportedGroup struct {
	ID  string   `json:"id"`
	Ops [][]byte `json:"ops"`
}

// importer is what imports ask of an Engine beside messages.
type importer interface {
	ImportGroup(ctx context.Context, ops [][]byte) (bool, error)
	ImportFile(ctx context.Context, f File) (bool, error)
}

// ImportResult is how many were not there and are now.
type ImportResult struct {
	Contacts int `json:"contacts"`
	Messages int `json:"messages"`
	Files    int `json:"files"`
	Groups   int `json:"groups"`
}

// take adds contacts and a history that were exported.
func (s *Server) take(ctx context.Context, p ImportParams) (any, error) {
	var r ImportResult
	contacts := make([]*Contact, 0, len(p.Contacts))
	for i, raw := range p.Contacts {
		c, err := ParseContact(raw)
		if err != nil {
			return nil, signal.Errorf(signal.ErrUsage, "contact %d: %v", i+1, err)
		}
		contacts = append(contacts, c)
	}
	messages := make([]Message, 0, len(p.Messages))
	for i, raw := range p.Messages {
		m, err := ParseMessage(raw)
		if err != nil {
			return nil, signal.Errorf(signal.ErrUsage, "message %d: %v", i+1, err)
		}
		messages = append(messages, m)
	}
	var added []Contact
	err := s.c.Engine.Book(func(b *Book, now time.Time) (err error) {
		for _, c := range contacts {
			if b.Take(c) {
				r.Contacts++
				added = append(added, *c)
			}
		}
		return nil
	})
	for _, c := range added {
		if l, bad := envelope.ParseLink(c.Link); bad == nil && err == nil {
			err = s.c.Engine.Meet(c.Account, l.Place)
		}
	}
	if err == nil && len(messages) > 0 {
		r.Messages, err = s.c.Engine.Import(ctx, messages)
	}
	if err == nil {
		err = s.takeMore(ctx, p, &r)
	}
	return r, err
}

// takeMore adds the records of files, and groups.
func (s *Server) takeMore(ctx context.Context, p ImportParams, r *ImportResult) error {
	e, ok := s.c.Engine.(importer)
	if !ok {
		return nil
	}
	for i, raw := range p.Files {
		var f FileInfo
		err := json.Unmarshal(raw, &f)
		var id hexID
		if err == nil {
			err = id.UnmarshalText([]byte(f.ID))
		}
		if err != nil {
			return signal.Errorf(signal.ErrUsage, "file %d: %v", i+1, err)
		}
		f.File.ID = MessageID(id)
		added, err := e.ImportFile(ctx, f.File)
		if err != nil {
			return signal.Errorf(signal.ErrUsage, "file %d: %v", i+1, err)
		}
		if added {
			r.Files++
		}
	}
	for i, g := range p.Groups {
		added, err := e.ImportGroup(ctx, g.Ops)
		if err != nil {
			return signal.Errorf(signal.ErrUsage, "group %d: %v", i+1, err)
		}
		if added {
			r.Groups++
		}
	}
	return nil
}
