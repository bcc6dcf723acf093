package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"skywire/cmd/internal/lab"
)

// The picture of the demo's internet. The client and the exit share no network, and no box but the two relays has a leg
// in both: whatever gets across went through the mesh.
const picture = `
                            203.0.113.0/24       198.51.100.0/24

   client --- home router ----+---- relay1 ----+---- exit --- web server
   192.168.7.2      (NAT)     |                |              10.50.0.2
                              +---- relay2 ----+
                              |
                              +---- manager
`

const (
	port       = "4443"
	webAddress = "10.50.0.2"
	webName    = "web.example"
	socksPort  = "1080"
	readyLimit = 30 * time.Second
)

// demo is one run.
type demo struct {
	lab     *lab.Lab
	binary  string
	out     io.Writer
	began   time.Time
	verbose bool

	box    map[string]*lab.Box
	daemon map[string]*lab.Process // "relay1" → its node
	key    map[string]string       // box → public key
	claims []claim
	web    *web
}

type claim struct {
	text, figure string
	err          error
}

// step prints a line of progress.
func (d *demo) step(format string, args ...any) {
	fmt.Fprintf(d.out, "[%5.1fs] %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// build makes the namespaces and starts every daemon.
func (d *demo) build(ctx context.Context) error {
	fmt.Fprint(d.out, picture, "\n")
	d.step("making six namespaces and their wires")
	if err := d.wires(); err != nil {
		return err
	}
	if err := d.startWeb(); err != nil {
		return err
	}
	if err := d.identities(ctx); err != nil {
		return err
	}
	if err := d.daemons(ctx); err != nil {
		return err
	}
	return d.startClient(ctx)
}

func (d *demo) wires() (err error) {
	if d.box, err = d.lab.Boxes("manager", "router", "client", "relay1", "relay2", "exit", "web"); err != nil {
		return err
	}
	near, err := d.lab.Box("near") // two Ethernet switches: the parts of the internet
	if err != nil {
		return err
	}
	far, err := d.lab.Box("far")
	if err != nil {
		return err
	}
	b := d.box
	return errors.Join(
		d.lab.Switch(near, "sw",
			lab.End{Box: b["manager"], Dev: "eth0", Addrs: []string{"203.0.113.10/24"}},
			lab.End{Box: b["router"], Dev: "wan", Addrs: []string{"203.0.113.2/24"}},
			lab.End{Box: b["relay1"], Dev: "eth0", Addrs: []string{"203.0.113.11/24"}},
			lab.End{Box: b["relay2"], Dev: "eth0", Addrs: []string{"203.0.113.12/24"}}),
		d.lab.Switch(far, "sw",
			lab.End{Box: b["relay1"], Dev: "eth1", Addrs: []string{"198.51.100.11/24"}},
			lab.End{Box: b["relay2"], Dev: "eth1", Addrs: []string{"198.51.100.12/24"}},
			lab.End{Box: b["exit"], Dev: "eth0", Addrs: []string{"198.51.100.20/24"}}),
		d.lab.Wire(lab.End{Box: b["router"], Dev: "lan", Addrs: []string{"192.168.7.1/24"}},
			lab.End{Box: b["client"], Dev: "eth0", Addrs: []string{"192.168.7.2/24"}}),
		d.lab.Wire(lab.End{Box: b["exit"], Dev: "lan", Addrs: []string{"10.50.0.1/24"}},
			lab.End{Box: b["web"], Dev: "eth0", Addrs: []string{webAddress + "/24"}}),
		b["client"].IP("route add default via 192.168.7.1"),
		b["router"].NAT("wan"),
		b["exit"].WriteEtc("hosts", "127.0.0.1 localhost\n"+webAddress+" "+webName+"\n"),
	)
}

// identities creates the keys.
func (d *demo) identities(ctx context.Context) error {
	d.key = map[string]string{}
	for _, name := range []string{"manager", "relay1", "relay2", "exit", "client"} {
		out, err := d.box[name].Skywire(ctx, "node", "id")
		if err != nil {
			return err
		}
		d.key[name] = strings.TrimSpace(out)
	}
	return nil
}

// daemons starts everything but the client, which viscript runs.
func (d *demo) daemons(ctx context.Context) error {
	d.daemon = map[string]*lab.Process{}
	listen := []string{"--listen", "udp://[::]:" + port, "--open"}
	near1, near2 := d.peer("relay1", "203.0.113.11"), d.peer("relay2", "203.0.113.12")
	far1, far2 := d.peer("relay1", "198.51.100.11"), d.peer("relay2", "198.51.100.12")
	manager := d.peer("manager", "203.0.113.10")
	for _, n := range []struct {
		name string
		args []string
	}{
		{"manager", nil},
		{"relay1", []string{"--manager", manager}},
		{"relay2", []string{"--manager", manager}},
		{"exit", []string{"--peer", far1, "--peer", far2, "--manager", d.key["manager"]}},
	} {
		d.step("starting the node of %s", n.name)
		if n.name == "manager" {
			n.args = []string{"--peer", near1, "--peer", near2}
		}
		args := append(append([]string{"node", "run", "--name", n.name}, listen...), n.args...)
		if err := d.start(ctx, n.name, "node", args...); err != nil {
			return err
		}
	}
	d.step("starting the manager; at the exit a messenger, and the servers of vpn and socks")
	return errors.Join(
		d.start(ctx, "manager", "manager", "manager", "run"),
		d.start(ctx, "exit", "vpn", "vpn", "server", "--exit", "--allow-private", "--allow", d.key["client"]),
		d.start(ctx, "exit", "socks", "socks", "server", "--allow", d.key["client"], "--allow-private"),
		d.start(ctx, "exit", "messenger", "messenger", "run"),
	)
}

func (d *demo) peer(name, host string) string { return d.key[name] + "@udp://" + host + ":" + port }

// start starts an applet in a box and, for a node, waits until it answers.
func (d *demo) start(ctx context.Context, box, name string, args ...string) error {
	p, err := d.box[box].StartSkywire(name, args...)
	if err != nil {
		return err
	}
	d.daemon[box+" "+name] = p
	if name != "node" {
		return nil
	}
	return lab.Wait(ctx, readyLimit, "node of "+box, func(ctx context.Context) error {
		select {
		case <-p.Done():
			return fmt.Errorf("it ended: %s", p.Tail(5))
		default:
		}
		_, err := d.box[box].Skywire(ctx, "node", "status")
		return err
	})
}

const clientConfig = `# What the client of the demo runs, under viscript.
apps:
  node:
    path: %[1]s/skywire-node
    desc: the mesh daemon
    default_args: [run, --name, client, --listen, "udp://[::]:%[2]s", --open, --peer, "%[3]s", --peer, "%[4]s", --manager, "%[5]s"]
  vpn:
    path: %[1]s/skywire-vpn
    desc: all traffic through the exit
    default_args: [client, --server, "%[6]s", --exit]
  messenger:
    path: %[1]s/skywire-messenger
    desc: messages to other boxes
    default_args: [run]
  socks:
    path: %[1]s/skywire-socks
    desc: a SOCKS5 and HTTP proxy on port %[7]s, out through the exit
    default_args: [client, --listen, "127.0.0.1:%[7]s", --server, "%[6]s"]
settings:
  runHeadless: false
`

// startClient starts viscript on the client and the apps by it.
func (d *demo) startClient(ctx context.Context) error {
	client := d.box["client"]
	bin := filepath.Join(client.Dir, "bin")
	if _, err := client.Skywire(ctx, "install-links", bin); err != nil {
		return err
	}
	text := fmt.Sprintf(clientConfig, bin, port, d.peer("relay1", "203.0.113.11"), d.peer("relay2", "203.0.113.12"),
		d.peer("manager", "203.0.113.10"), d.key["exit"], socksPort)
	if err := client.WriteConfig(text); err != nil {
		return err
	}
	d.step("starting viscript on the client, and by it node, vpn, socks and messenger")
	viscript, err := client.StartSkywire("viscript", "viscript", "run")
	if err != nil {
		return err
	}
	d.daemon["client viscript"] = viscript
	err = lab.Wait(ctx, readyLimit, "viscript", func(ctx context.Context) error {
		_, err := client.Skywire(ctx, "viscript", "ps")
		return err
	})
	if err != nil {
		return err
	}
	if _, err := client.Skywire(ctx, "viscript", "start", "node"); err != nil {
		return err
	}
	err = lab.Wait(ctx, readyLimit, "node of the client", func(ctx context.Context) error {
		_, err := client.Skywire(ctx, "node", "status")
		return err
	})
	if err != nil {
		return err
	}
	for _, app := range []string{"vpn", "socks", "messenger"} {
		if _, err := client.Skywire(ctx, "viscript", "start", app); err != nil {
			return err
		}
	}
	return nil
}

// logs prints the ends of the daemons' logs.
func (d *demo) logs() {
	if !d.verbose {
		return
	}
	for name, p := range d.daemon {
		fmt.Fprintf(d.out, "--- %s\n%s\n", name, p.Tail(15))
	}
	if client := d.box["client"]; client != nil {
		for _, app := range []string{"node", "vpn", "socks", "messenger"} {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			out, err := client.Skywire(ctx, "viscript", "logs", app, "-n", "15")
			cancel()
			fmt.Fprintf(d.out, "--- client %s\n%s%v\n", app, out, err)
		}
	}
}
