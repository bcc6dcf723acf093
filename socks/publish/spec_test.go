package publish_test

import (
	"errors"
	"testing"

	"skywire/socks/publish"
)

func TestParseSpec(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]publish.Spec{
		"web=tcp://127.0.0.1:80":      {Name: "web", Port: 80, Network: "tcp", Address: "127.0.0.1:80"},
		"web:80=tcp://127.0.0.1:8080": {Name: "web", Port: 80, Network: "tcp", Address: "127.0.0.1:8080"},
		"Web=tcp://host.lan:80/":      {Name: "web", Port: 80, Network: "tcp", Address: "host.lan:80"},
		"dns=udp://[::1]:53":          {Name: "dns", Port: 53, Network: "udp", Address: "[::1]:53"},
		"db:5432=unix:/run/pg":        {Name: "db", Port: 5432, Network: "unix", Address: "/run/pg"},
		"db:5432=unix:///run/pg":      {Name: "db", Port: 5432, Network: "unix", Address: "/run/pg"},
	} {
		got, err := publish.ParseSpec(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "web", "web=", "=tcp://h:1", "web=tcp://h", "web=tcp://:80", "web=http://h:80", "web=h:80", "web=unix:/x", "web:1=unix:",
		"web:0=tcp://h:80", "web:x=tcp://h:80", "web:65536=tcp://h:80", "web=tcp://h:0", "socks=tcp://h:80", "vpn=tcp://h:80",
		"a.b=tcp://h:80", "-a=tcp://h:80", "a b=tcp://h:80",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=tcp://h:80",
	} {
		if got, err := publish.ParseSpec(text); !errors.Is(err, publish.ErrSpec) {
			t.Errorf("%q: %+v, %v, want ErrSpec", text, got, err)
		}
	}
}

func TestParseForward(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]publish.Forward{
		"127.0.0.1:8080=alice:web":     {Network: "tcp", Listen: "127.0.0.1:8080", Node: "alice", Service: "web"},
		"8080=alice:80":                {Network: "tcp", Listen: "127.0.0.1:8080", Node: "alice", Port: 80},
		"5353=alice:dns/udp":           {Network: "udp", Listen: "127.0.0.1:5353", Node: "alice", Service: "dns"},
		"8080=alice.mesh:web/tcp":      {Network: "tcp", Listen: "127.0.0.1:8080", Node: "alice.mesh", Service: "web"},
		"[::1]:8080=[fd00::1]:80":      {Network: "tcp", Listen: "[::1]:8080", Node: "fd00::1", Port: 80},
		":8080=alice:web":              {Network: "tcp", Listen: ":8080", Node: "alice", Service: "web"},
		"unix:/run/web.sock=alice:web": {Network: "unix", Listen: "/run/web.sock", Node: "alice", Service: "web"},
	} {
		got, err := publish.ParseForward(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
		if again, err := publish.ParseForward(got.String()); err != nil || again != got {
			t.Errorf("%s: %q becomes %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{
		"", "8080", "8080=", "8080=alice", "8080=alice:", "8080=:web", "=alice:web", "x=alice:web", "8080=alice:0", "host:=alice:web",
		"unix:=alice:web", "unix:/x=alice:dns/udp", "70000=alice:web",
	} {
		if got, err := publish.ParseForward(text); !errors.Is(err, publish.ErrSpec) {
			t.Errorf("%q: %+v, %v, want ErrSpec", text, got, err)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add("web:80=tcp://127.0.0.1:8080")
	f.Add("db:1=unix:/x")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := publish.ParseSpec(text)
		if err != nil {
			return
		}
		if s.Name == "" || s.Port == 0 || s.Address == "" {
			t.Errorf("%q: %+v", text, s)
		}
	})
}

func FuzzParseForward(f *testing.F) {
	f.Add("127.0.0.1:8080=alice:web")
	f.Add("5353=[fd00::1]:53/udp")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := publish.ParseForward(text)
		if err != nil {
			return
		}
		if w.Node == "" || w.Listen == "" || w.Service == "" && w.Port == 0 {
			t.Errorf("%q: %+v", text, w)
		}
	})
}
