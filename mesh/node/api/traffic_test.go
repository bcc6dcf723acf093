package api_test

import (
	"io"
	"testing"

	"skywire/mesh/app"
	"skywire/mesh/node/api"
)

// TestTraffic: what an app's streams carry is counted at both ends while they are open, and goes on when it registers anew.
func TestTraffic(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	offer(t, server, "echo")
	serveEcho(t, server, "echo")
	if err := client.Register(t.Context(), app.Registration{Name: "c", Kind: "test"}); err != nil {
		t.Fatal(err)
	}
	st, err := client.Dial(t.Context(), b.key, "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	const size = 10000
	if _, err := st.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(st, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	counted := func(c *app.Client) bool {
		var list []api.App
		if err := c.Call(t.Context(), "app.list", nil, &list); err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0].RxBytes == size && list[0].TxBytes == size
	}
	eventually(t, "the dialling app's bytes", func() bool { return counted(client) })
	eventually(t, "the serving app's bytes", func() bool { return counted(server) })
	if err := client.Register(t.Context(), app.Registration{Name: "c", Kind: "test", Services: []app.Service{{Name: "more", Type: "test"}}}); err != nil {
		t.Fatal(err)
	}
	if !counted(client) {
		t.Error("forgotten by registering anew")
	}
}
