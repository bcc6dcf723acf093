package vpn

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"skywire/tun"
	"skywire/tun/netcfg"
)

// Names and sizes that need no setting.
const (
	DefaultDevice = "skywire0"
	// Service is the name and the type under which servers are found.
	Service = "vpn"
	// queueLen is short, since what waits in the device waits unseen by TCP's own queue control, and long enough for
	// what UDP senders emit while the node waits for a processor: 128 were 6 ms at 200 Mbit/s, and lost some percent on a
	// busy box. Super-packets of TCP are bounded by their sockets' buffers long before.
	queueLen = 500
	// gsoMaxSize makes a super-packet, cut and sealed, fit one train: 45 segments. The kernel keeps 320 bytes of it for
	// headers, and 46 segments would send a second train of a single frame after each.
	gsoMaxSize = 60700
)

// DefaultPool is where servers lease IPv4 addresses from (RFC 6598).
func DefaultPool() netip.Prefix { return netip.MustParsePrefix("100.64.0.0/10") }

// Config is what an App is told once.
type Config struct {
	Name   string     // the app's name at the node; default "vpn"
	Run    string     // for the journal
	State  string     // for the leases
	Device string     // default skywire0
	MTU    int        // default 1400
	Plain  bool       // no offloads on the device
	Accept []Accepted // subnets of others
	Server *ServerConfig
	Client *ClientConfig
	DNS    DNSConfig
	Log    *slog.Logger
}

// ClientConfig is which server to use, and what for.
type ClientConfig struct {
	Servers []string // NODE, or "auto" for the nearest that offers a vpn; the preferred first
	Stay    bool     // with the server in use, even when a preferred one is back
	Exit    bool     // send everything through it
	Exclude []netip.Prefix
	Accept  []netip.Prefix // public subnets that the server may take over; private ones need no word

	ExcludeBy Split         // what else stays out of the tunnel
	OnlyBy    Split         // or what alone goes by it
	Gateways  []netcfg.Gate // whose clients go by it, too

	// NodeUsers has the node's user, if the node has it to itself: its packets then stay out of the tunnel, and pass the
	// kill switch, without a mark, those of carriers over TCP, too.
	NodeUsers []uint32

	KillSwitch bool // nothing leaves but by the tunnel, until released
	Release    bool // take the kill switch of an earlier run off
	LAN        bool // the kill switch lets private and link-local destinations be reached
}

// Validate fills in defaults and reports what makes no sense.
func (c *Config) Validate() error {
	if c.Name == "" {
		c.Name = "vpn"
	}
	if c.Device == "" {
		c.Device = DefaultDevice
	}
	if c.MTU == 0 {
		c.MTU = tun.DefaultMTU
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MTU < tun.MinMTU || c.MTU > tun.MaxMTU {
		return fmt.Errorf("mtu %d: want %d to %d", c.MTU, tun.MinMTU, tun.MaxMTU)
	}
	if err := c.DNS.validate(); err != nil {
		return err
	}
	if c.Run == "" || (c.Server != nil || c.Client != nil) && c.State == "" {
		return errors.New("vpn: run and state directory are needed")
	}
	var err error
	if c.Accept, err = validateAccepted(c.Accept); err != nil {
		return err
	}
	if c.Server != nil {
		if err := c.Server.validate(); err != nil {
			return err
		}
	}
	if c.Client != nil {
		if c.Server != nil && len(c.Client.Gateways) > 0 {
			return errors.New("a box that serves others through its device cannot be a gateway by it, too")
		}
		return c.Client.Validate()
	}
	return nil
}

// autoServer stands for all servers of the mesh, the nearest first.
const autoServer = "auto"

// Validate fills in defaults and reports what makes no sense.
func (c *ClientConfig) Validate() error {
	if len(c.Servers) == 0 {
		c.Servers = []string{autoServer}
	}
	if c.KillSwitch && !c.Exit {
		return errors.New("a kill switch without --exit would let nothing out: say --exit, too")
	}
	if err := c.validateSplit(); err != nil {
		return err
	}
	if c.KillSwitch && c.Release {
		return errors.New("a kill switch is either wished or taken off")
	}
	return nil
}
