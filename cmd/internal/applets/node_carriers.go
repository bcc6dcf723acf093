package applets

import (
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/node"
)

// nodeCarriers are the settings of how links travel where UDP does not pass.
type nodeCarriers struct {
	Proxy   string `yaml:"proxy"`
	NoProxy string `yaml:"no_proxy"`
	SNI     string `yaml:"sni"`
}

const nodeCarriersAbout = `Where UDP does not pass, links travel over tcp://host:port or wss://host[:port]/path (WebSocket over TLS, port 443): give these
as further --listen and --peer. All addresses of a peer are tried at once; the link comes back to UDP as soon as that works.
The certificate of wss is made by the node and looked at by nobody: TLS is there for firewalls, who the peer is shows the
handshake inside. Behind a reverse proxy, listen on ws://127.0.0.1:PORT/path.`

func (c *nodeCarriers) flags(f *applet.Flags) {
	f.StringVar(&c.Proxy, "proxy", "", "`URL` of an HTTP proxy for wss, http://[user:password@]host:port (default: the variable https_proxy; none: without)")
	f.StringVar(&c.NoProxy, "no-proxy", "", "`HOSTS` reached without it: names, domains and prefixes by commas (default: the variable no_proxy)")
	f.StringVar(&c.SNI, "sni", "", "`NAME` told to wss servers instead of the host of their address")
}

// carriers joins them with the streams of --listen.
func (c *nodeCarriers) carriers(e *applet.Env, listen []string) node.Carriers {
	all := node.Carriers{Listen: listen, Proxy: c.Proxy, NoProxy: c.NoProxy, SNI: c.SNI}
	either := func(name string) string {
		if v := e.Getenv(name); v != "" {
			return v
		}
		return e.Getenv(strings.ToUpper(name))
	}
	switch all.Proxy {
	case "":
		all.Proxy = either("https_proxy")
	case "none":
		all.Proxy = ""
	}
	if all.NoProxy == "" {
		all.NoProxy = either("no_proxy")
	}
	return all
}

// isStream reports whether an ADDR is one of the stream carriers.
func isStream(addr string) bool {
	scheme, _, ok := strings.Cut(addr, "://")
	return ok && scheme != "udp"
}
