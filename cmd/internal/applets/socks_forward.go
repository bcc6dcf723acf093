//go:build !mini

package applets

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/socks/publish"
)

const socksForwardAbout = `Listens on this box and leads to services that other nodes publish (skywire socks publish). It needs no rights: no TUN, no
root, and nothing beside the node.

    socks forward --local 127.0.0.1:8080=alice:web        a service by name
    socks forward --local 8080=alice:80                   by the port under which it is published; on 127.0.0.1
    socks forward --local 5353=alice:dns/udp              packets
    socks forward --local unix:/run/web.sock=alice:web    a unix socket in front

Who reaches the local address uses the service in the name of this node, so an address beyond this box (0.0.0.0:8080)
shares it with the network there. Forwards in the other direction, from another box's ports to this one, are not made
here: publish a service here and run socks forward there. A TCP connection to a service that is not reached, or does not
admit this node, is reset; the reason stands in the log and in skywire socks status.`

func socksForward(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks forward", "--local LISTEN=NODE:SERVICE… [flags]", socksForwardAbout)
	var c socksConfig
	v := &c.Forward
	f.ListVar(&v.Local, "local", "`LISTEN=NODE:SERVICE`, with /udp behind it for packets (repeatable)")
	f.StringVar(&v.Name, "name", "", "`NAME` of this app beside its node")
	_, err := f.Parse(0, 0)
	if err == nil {
		err = f.Overlay(openSections, "socks", &c)
	}
	var all []publish.Forward
	if err == nil && len(v.Local) == 0 {
		err = applet.Usagef("nothing to forward: say --local LISTEN=NODE:SERVICE")
	}
	for _, text := range v.Local {
		w, perr := publish.ParseForward(text)
		if perr != nil {
			err = applet.WithCode(applet.BadUsage, perr)
		}
		all = append(all, w)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runSocksForward(ctx, f, *v, all) })
}

func runSocksForward(ctx context.Context, f *applet.Flags, v socksForwardConfig, all []publish.Forward) error {
	node, err := awaitNode(ctx, f, startWait(f.Env()))
	if err != nil {
		return err
	}
	defer node.Close()
	w, err := publish.NewForwarder(publish.ForwarderConfig{Node: node, Forwards: all, Log: f.Logger()})
	if err != nil {
		return err
	}
	if v.Name == "" { // several beside one node
		v.Name = socksForwardKind + "-" + appWord(w.Status()[0].Listen)
	}
	if err := node.Register(ctx, app.Registration{Name: v.Name, Kind: socksForwardKind}); err != nil {
		return fmt.Errorf("register %q with the node: %w; choose another with --name", v.Name, err)
	}
	return besideNode(ctx, f, node, w.Run)
}

// appWord makes a part of an app's name of an address: the port, or the last part of a path.
func appWord(listen string) string {
	if _, port, err := net.SplitHostPort(listen); err == nil {
		return port
	}
	word := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, listen[strings.LastIndexByte(listen, '/')+1:])
	return word[:min(len(word), 40)]
}

// socksPrintForward prints what forwards do, for socks status.
func socksPrintForward(e *applet.Env, r socksReport) error {
	var all []publish.ForwardStatus
	if len(r.Status) > 0 {
		if err := json.Unmarshal(r.Status, &all); err != nil {
			return err
		}
	}
	fmt.Fprintf(e.Stdout, "%s (pid %d): forwards\n", r.Name, r.PID)
	for _, s := range all {
		fault := ""
		if s.Fault != "" {
			fault = "; " + s.Fault
		}
		fmt.Fprintf(e.Stdout, "  %s (%s) to %s of %s: %d connections now; %d made, %d failed; %s sent, %s received%s\n",
			s.Listen, s.Network, s.Service, s.Node, s.Connections, s.Made, s.Failed, applet.Bytes(s.Sent), applet.Bytes(s.Received), fault)
	}
	return nil
}
