//go:build web || !(mips || mipsle || mini)

package portmap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/httpu"
	"github.com/huin/goupnp/ssdp"
)

// Limits of UPnP.
const (
	upnpSearch = 2 * time.Second // devices answer within the time that the search tells them
	upnpWait   = 3 * time.Second
	upnpMost   = 256 << 10 // of a description
	upnpTries  = 3         // ports
)

// igd is what all versions of the service can do.
type igd interface {
	AddPortMappingCtx(ctx context.Context, host string, external uint16, protocol string, internal uint16, client string, enabled bool, about string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, host string, external uint16, protocol string) error
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	GetServiceClient() *goupnp.ServiceClient
}

// upnpGrant asks by UPnP.
func upnpGrant(ctx context.Context, c *client, wish netip.AddrPort, life time.Duration) (netip.AddrPort, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, upnpSearch+upnpTries*upnpWait)
	defer cancel()
	service, ok := c.upnp.(igd)
	if !ok {
		var err error
		if service, err = c.findIGD(ctx); err != nil {
			return netip.AddrPort{}, 0, err
		}
		c.upnp = service
	}
	at, granted, err := c.askIGD(ctx, service, wish.Port(), life)
	if err != nil {
		c.upnp = nil // it may be elsewhere the next time
	}
	return at, granted, err
}

func (c *client) askIGD(ctx context.Context, s igd, external uint16, life time.Duration) (netip.AddrPort, time.Duration, error) {
	if life == 0 {
		return netip.AddrPort{}, 0, s.DeletePortMappingCtx(ctx, "", c.mapping.External.Port(), "UDP")
	}
	ip, err := s.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(ip))
	if err != nil {
		return netip.AddrPort{}, 0, fmt.Errorf("%w: outside address %q", ErrMalformed, ip)
	}
	if external == 0 {
		external = c.port
	}
	for range upnpTries {
		for _, lease := range []time.Duration{life, 0} { // some take nothing but leases without end (error 725)
			err = s.AddPortMappingCtx(ctx, "", external, "UDP", c.port, c.Local.String(), true, "skywire", uint32(lease/time.Second))
			if err == nil {
				return netip.AddrPortFrom(addr.Unmap(), external), life, nil
			}
		}
		if ctx.Err() != nil {
			break
		}
		external = uint16(20000 + rand.IntN(40000)) // taken, perhaps
	}
	return netip.AddrPort{}, 0, fmt.Errorf("%w: %w", ErrRefused, err)
}

// findIGD asks by multicast who can map ports, and takes the gateway's answer: whoever else answers is not even fetched.
func (c *client) findIGD(ctx context.Context) (igd, error) {
	h, err := httpu.NewHTTPUClientAddr(c.Local.String())
	if err != nil {
		return nil, err
	}
	defer h.Close()
	search, cancel := context.WithTimeout(ctx, upnpSearch)
	defer cancel()
	answers, err := ssdp.RawSearch(search, h, "upnp:rootdevice", 2)
	if err != nil {
		return nil, err
	}
	for _, a := range answers {
		if loc, err := a.Location(); err == nil && c.isGateway(loc) {
			if s, err := c.describe(ctx, loc); err == nil {
				return s, nil
			}
		}
	}
	return nil, ErrNoAnswer
}

// isGateway reports whether a URL is on the gateway itself.
func (c *client) isGateway(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a == c.Addr && u.Scheme == "http"
}

// describe fetches a gateway's description and finds the service in it.
func (c *client) describe(ctx context.Context, loc *url.URL) (igd, error) {
	web := c.web()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, loc.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := web.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var root goupnp.RootDevice
	d := xml.NewDecoder(io.LimitReader(answer.Body, upnpMost))
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := d.Decode(&root); err != nil {
		return nil, fmt.Errorf("description: %w", err)
	}
	root.SetURLBase(loc) // what it says of itself may lead elsewhere
	for _, s := range services(&root, loc) {
		client := s.GetServiceClient().SOAPClient
		if client.HTTPClient = *web; c.isGateway(&client.EndpointURL) {
			return s, nil
		}
	}
	return nil, errors.New("it maps no ports")
}

// services are those of a device that map ports, the newest kind first.
func services(root *goupnp.RootDevice, loc *url.URL) (all []igd) {
	if found, err := internetgateway2.NewWANIPConnection2ClientsFromRootDevice(root, loc); err == nil {
		for _, s := range found {
			all = append(all, s)
		}
	}
	if found, err := internetgateway2.NewWANIPConnection1ClientsFromRootDevice(root, loc); err == nil {
		for _, s := range found {
			all = append(all, s)
		}
	}
	if found, err := internetgateway2.NewWANPPPConnection1ClientsFromRootDevice(root, loc); err == nil {
		for _, s := range found {
			all = append(all, s)
		}
	}
	return all
}

// web is an HTTP client that talks to the gateway alone: no proxy, no redirects, no connections kept, bounded answers.
func (c *client) web() *http.Client {
	dialer := net.Dialer{Timeout: upnpWait, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.Local, 0))}
	return &http.Client{
		Timeout: upnpWait,
		Transport: bounded{&http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded cuts the bodies of answers.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		a.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(a.Body, upnpMost), a.Body}
	}
	return a, err
}
