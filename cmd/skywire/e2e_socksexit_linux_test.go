package main

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// TestE2EExit keeps clients of an exit to its rules and limits, with the real binary.
func TestE2EExit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "exit")
	w.chain("a", "b")
	w.plain("web")
	w.must(w.lab.Wire(w.end("b", "lan", "10.50.0.1/24"), w.end("web", "eth0", "10.50.0.2/24")),
		w.box["b"].WriteEtc("hosts", "10.50.0.2 web.example denied.example\n"))
	w.reach("a", "b")
	w.start("b", "socks", "socks", "server", "--allow", w.key["a"], "--rate", "8Mbit", "--idle", "4s",
		"--policy", "deny denied.example", "--policy", "allow tcp 10.50.0.0/24:7000", "--policy", "deny *")
	w.start("a", "socks", "socks", "client", "--listen", "127.0.0.1:1080", "--server", w.key["b"])
	w.oddServer("web", "10.50.0.2:7000")
	w.oddServer("web", "10.50.0.2:7001")
	w.wait("the proxy", func(ctx context.Context) error {
		_, err := w.box["a"].Shell(ctx, "ss -Htln sport = :1080 | grep -q .")
		return w.alive(w.run["a socks"], err)
	})
	for target, want := range map[string]error{
		"10.50.0.2:7000": nil, "web.example:7000": nil, "10.50.0.2:7001": errRefused, "web.example:7001": errRefused,
		"denied.example:7000": errRefused, "10.50.0.1:7000": errRefused, "127.0.0.1:7000": errRefused, "8.8.8.8:53": errRefused,
	} {
		c := w.dial("a", "127.0.0.1:1080", 1)[0]
		if err := connectSOCKS(c, target); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", target, err, want)
		}
		c.Close()
	}

	// 2 MB at 1 MB/s, of which a quarter of a second is free.
	c := w.through("10.50.0.2:7000", 1)[0]
	start := time.Now()
	download(t, c, 2_000_000)
	if took := time.Since(start); took < 1600*time.Millisecond {
		t.Errorf("2 MB took %v at 8 Mbit/s", took)
	}
	c.Close() // bytes are told when a connection has ended
	idle := w.through("10.50.0.2:7000", 1)[0]
	if _, err := idle.Write([]byte{askEcho}); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if n, err := idle.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || time.Since(start) < 3*time.Second {
		t.Errorf("an idle connection ended after %v with %d, %v", time.Since(start), n, err)
	}
	w.exitStatus()
	w.exitDrains(t)
	w.stopAll("node")
}

// exitStatus looks at what the exit says of its client.
func (w *world) exitStatus() {
	w.t.Helper()
	var all []struct {
		Status struct {
			Rules int    `json:"rules"`
			Rate  uint64 `json:"rate_bytes_per_second"`
			Keys  []struct {
				Key      string `json:"key"`
				Accepted int    `json:"accepted"`
				Refused  int    `json:"refused"`
				Sent     uint64 `json:"tx_bytes"`
			} `json:"keys"`
		} `json:"status"`
	}
	w.wait("figures of the client", func(ctx context.Context) error {
		if err := w.box["b"].SkywireJSON(ctx, &all, "socks", "status"); err != nil {
			return err
		}
		if len(all) == 1 && len(all[0].Status.Keys) == 1 && all[0].Status.Keys[0].Sent >= 2_000_000 {
			return nil
		}
		return errors.New("not there") // a status is up to 2 s old
	})
	s := all[0].Status
	if s.Rules != 3 || s.Rate != 1_000_000 || s.Keys[0].Key != w.key["a"] || s.Keys[0].Accepted < 4 || s.Keys[0].Refused < 6 {
		w.t.Errorf("%+v", s)
	}
}

// exitDrains stops the exit under a connection: that goes on, and no new one is made.
func (w *world) exitDrains(t *testing.T) {
	t.Helper()
	c := w.through("10.50.0.2:7000", 1)[0]
	w.must(w.run["b socks"].Stop(patience))
	halfClose(t, c, 100_000)
	late := w.dial("a", "127.0.0.1:1080", 1)[0]
	defer late.Close()
	if err := connectSOCKS(late, net.JoinHostPort("10.50.0.2", "7000")); err == nil {
		w.t.Error("a connection through an exit that has ended")
	}
}
