package vpn

import (
	"log/slog"
	"net/netip"
	"time"

	"skywire/signal"
	"skywire/tun/netcfg"
)

// State is what the vpn is doing.
type State string

// States of an App. A server or a mere device is Up; a client is Connected only after a probe came back.
const (
	Starting   State = "starting"
	Up         State = "up"
	Connecting State = "connecting"
	Probing    State = "probing"
	Connected  State = "connected"
	Silent     State = "silent" // was connected; probes do not come back
)

// Status is what `vpn status` shows.
type Status struct {
	State   State      `json:"state"`
	Device  string     `json:"device"`
	Address netip.Addr `json:"address"`
	IPv4    netip.Addr `json:"ipv4,omitzero"` // of our certificate
	MTU     int        `json:"mtu"`
	Roles   []string   `json:"roles"`
	Started time.Time  `json:"started"`
	RxBytes uint64     `json:"rx_bytes"`
	TxBytes uint64     `json:"tx_bytes"`
	RxRate  float64    `json:"rx_bps"` // bits a second since the status was last made
	TxRate  float64    `json:"tx_bps"`

	Mark       int            `json:"mark,omitempty"`        // of the node's own packets
	KillSwitch *netcfg.Locked `json:"kill_switch,omitempty"` // what of it is in force

	Accepted []AcceptedStatus `json:"accepted,omitempty"` // subnets of others

	Server *ServerStatus `json:"server,omitempty"`
	Client *ClientStatus `json:"client,omitempty"`
	DNS    *DNSStatus    `json:"dns,omitempty"`
}

// ServerStatus is what a server has given.
type ServerStatus struct {
	IPv4    netip.Addr     `json:"ipv4"`
	Exit    bool           `json:"exit"`
	IPv6    bool           `json:"ipv6"`
	NAT     bool           `json:"nat"`
	Peers   bool           `json:"client_to_client"`
	Subnets []netip.Prefix `json:"subnets"`
	Clients []LeaseStatus  `json:"clients"`

	UpLimit   uint64       `json:"up_limit,omitempty"` // bits a second from each client; 0: no limit
	DownLimit uint64       `json:"down_limit,omitempty"`
	Quota     *QuotaStatus `json:"quota,omitempty"`
}

// QuotaStatus is what each client may use of a server.
type QuotaStatus struct {
	Bytes  uint64    `json:"bytes"`
	Period string    `json:"period,omitempty"` // day, week, month; else for ever
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"`
}

// LeaseStatus is one client that is on-line.
type LeaseStatus struct {
	Key       string         `json:"key"`
	Name      string         `json:"name,omitempty"`
	IPv4      netip.Addr     `json:"ipv4"`
	Exit      bool           `json:"exit"`
	Subnets   []netip.Prefix `json:"subnets,omitempty"`
	Since     time.Time      `json:"since"`
	UpBytes   uint64         `json:"up_bytes"` // from it, through the gateway, in the quota's period
	DownBytes uint64         `json:"down_bytes"`
	UpRate    float64        `json:"up_bps"`
	DownRate  float64        `json:"down_bps"`
	QuotaLeft *uint64        `json:"quota_left,omitempty"` // bytes
}

// ClientStatus is what a client got.
type ClientStatus struct {
	Servers   []string       `json:"servers"` // as named, the preferred first
	Server    string         `json:"server"`  // key of the one in use
	IPv4      netip.Addr     `json:"ipv4,omitzero"`
	Gateway   netip.Addr     `json:"gateway,omitzero"`
	Exit      bool           `json:"exit"`
	IPv6      bool           `json:"ipv6"`
	Subnets   []netip.Prefix `json:"subnets"`
	Refused   []netip.Prefix `json:"refused_subnets,omitempty"` // offered, and not taken
	Since     time.Time      `json:"since,omitzero"`            // connected
	RTT       float64        `json:"rtt_ms,omitempty"`
	Error     string         `json:"error,omitempty"` // why it is not connected
	NextTry   time.Time      `json:"next_try,omitzero"`
	LeakCheck string         `json:"leak_check,omitempty"`
}

// sample is the device's counters at a time.
type sample struct {
	at     time.Time
	rx, tx uint64
	rates  [2]float64
}

// rate is what goes through the device in bits a second, since the last time it was asked but at least for a second.
func (a *App) rate(rx, tx uint64) (in, out float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, s := time.Now(), &a.sample
	seconds := now.Sub(s.at).Seconds()
	if seconds < 1 {
		return s.rates[0], s.rates[1]
	}
	if !s.at.IsZero() && rx >= s.rx && tx >= s.tx {
		s.rates = [2]float64{float64(rx-s.rx) * 8 / seconds, float64(tx-s.tx) * 8 / seconds}
	}
	s.at, s.rx, s.tx = now, rx, tx
	return s.rates[0], s.rates[1]
}

// lockState is what of the kill switch is in force.
func lockState(log *slog.Logger) *netcfg.Locked {
	l, err := netcfg.KillSwitchState()
	if err != nil {
		log.Warn("kill switch not looked at", "err", err)
	}
	return &l
}

// onForce has f end the session when somebody asks for a reconnection, until stop is called.
func (a *App) onForce(f func()) (stop func()) {
	set := func(f func()) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.force = f
	}
	set(f)
	return func() { set(nil) }
}

// reconnect ends the client role's session; it begins anew at once.
func (a *App) reconnect() error {
	a.mu.Lock()
	f := a.force
	a.mu.Unlock()
	if f == nil {
		return signal.Errorf(signal.ErrNotFound, "this vpn is no client with a session")
	}
	f()
	return nil
}
