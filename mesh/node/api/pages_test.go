package api_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/node/api"
)

// TestLongLists: whatever strangers put into their records, an answer fits its line, and records come page by page.
func TestLongLists(t *testing.T) {
	t.Parallel()
	b := one(t)
	c := b.client(t)
	name, meta := strings.Repeat("<", 63), strings.Repeat("<", 256)
	keys := make([]key.Public, 400)
	for i := range keys {
		k, err := key.Generate()
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k.Public()
	}
	slices.SortFunc(keys, func(a, b key.Public) int { return bytes.Compare(a[:], b[:]) })
	b.node.mu.Lock()
	for _, k := range keys {
		r := api.Record{Key: k, Name: name, Version: name, Raw: make([]byte, 4096)}
		for range 32 {
			r.Links = append(r.Links, api.RecordLink{Key: r.Key, RTT: 1.0 / 3, Loss: 1.0 / 3, Capacity: 1 << 63})
			r.Services = append(r.Services, app.Service{Name: "s", Key: r.Key, Node: name})
		}
		b.node.records = append(b.node.records, r)
		for range 8 {
			b.node.services = append(b.node.services, app.Service{Name: name, Type: "vpn", Meta: meta, Key: r.Key, Node: name, RTT: 1.0 / 3})
		}
	}
	b.node.mu.Unlock()
	seen := 0
	var after api.RecordsParams
	for {
		var page []api.Record
		if err := c.Call(t.Context(), "node.records", after, &page); err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			if r.Key != b.node.records[seen].Key {
				t.Fatalf("record %d is %s", seen, r.Key)
			}
			seen++
		}
		after.After = page[len(page)-1].Key
	}
	if seen != len(b.node.records) {
		t.Errorf("%d records, want %d", seen, len(b.node.records))
	}
	var services []app.Service
	if err := c.Call(t.Context(), "node.services", api.ServicesParams{Type: "vpn"}, &services); err != nil || len(services) == 0 {
		t.Errorf("%d services, %v", len(services), err)
	}
}
