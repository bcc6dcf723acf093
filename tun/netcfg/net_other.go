//go:build !linux

package netcfg

import (
	"errors"
	"net/netip"
	"os"
)

// Net is the changed network of one device; here nothing can be changed.
type Net struct{}

// Default is how everything that has no closer route leaves through the device.
type Default struct {
	Table            int
	V4, V6, Block6   bool
	Exclude          []netip.Prefix
	Source4, Source6 netip.Addr
}

// Open returns errors.ErrUnsupported.
func Open(Config) (*Net, error) { return nil, errors.ErrUnsupported }

// FreeTable returns errors.ErrUnsupported.
func FreeTable() (int, error) { return 0, errors.ErrUnsupported }

// HasDefault returns errors.ErrUnsupported.
func HasDefault(bool) (bool, error) { return false, errors.ErrUnsupported }

func (*Net) ClaimLink() error                     { return errors.ErrUnsupported }
func (*Net) SetLink(Link) error                   { return errors.ErrUnsupported }
func (*Net) Address(string, netip.Prefix) error   { return errors.ErrUnsupported }
func (*Net) Addresses() ([]netip.Prefix, error)   { return nil, errors.ErrUnsupported }
func (*Net) Route(string, Route) error            { return errors.ErrUnsupported }
func (*Net) Rule(string, Rule) error              { return errors.ErrUnsupported }
func (*Net) Default(string, Default) error        { return errors.ErrUnsupported }
func (*Net) Sysctl(string, string, string) error  { return errors.ErrUnsupported }
func (*Net) Forwarding(string) error              { return errors.ErrUnsupported }
func (*Net) Firewall(string, Firewall) error      { return errors.ErrUnsupported }
func (*Net) SetClient(Client) error               { return errors.ErrUnsupported }
func (*Net) DropClient(netip.Addr) error          { return errors.ErrUnsupported }
func (*Net) Usage() (map[netip.Addr]Usage, error) { return nil, errors.ErrUnsupported }
func (*Net) KeepOpen(string) error                { return errors.ErrUnsupported }
func (*Net) Undo(string) error                    { return errors.ErrUnsupported }
func (*Net) Close() error                         { return nil }

func lockFile(*os.File) (bool, error) { return false, errors.ErrUnsupported }
func unlockFile(*os.File) error       { return errors.ErrUnsupported }
func unlinked(*os.File) bool          { return false }

// ServedPrefixes returns errors.ErrUnsupported.
func ServedPrefixes(string) ([]netip.Prefix, error) { return nil, errors.ErrUnsupported }

// RouteDevice returns errors.ErrUnsupported.
func RouteDevice(netip.Addr) (string, error) { return "", errors.ErrUnsupported }

// LocalPrefixes returns errors.ErrUnsupported.
func LocalPrefixes(string) ([]netip.Prefix, error) { return nil, errors.ErrUnsupported }
