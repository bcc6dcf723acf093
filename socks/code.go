package socks

import "strconv"

// Code is a reply code of RFC 1928, 6. The exit's verdict travels as one, so that it reaches the program as it was given.
type Code uint8

// The reply codes.
const (
	Granted Code = iota
	Failed
	NotAllowed
	NetworkUnreachable
	HostUnreachable
	Refused
	Expired // nothing answered in time
	CommandNotSupported
	AddressNotSupported
)

// String returns the code in words for logs and people.
func (c Code) String() string {
	switch c {
	case Granted:
		return "granted"
	case Failed:
		return "failed"
	case NotAllowed:
		return "not allowed"
	case NetworkUnreachable:
		return "network unreachable"
	case HostUnreachable:
		return "host unreachable"
	case Refused:
		return "connection refused"
	case Expired:
		return "timed out"
	case CommandNotSupported:
		return "command not supported"
	case AddressNotSupported:
		return "address type not supported"
	}
	return "code " + strconv.Itoa(int(c))
}

// httpStatus maps a verdict to what an HTTP proxy would say (RFC 9110, 15.6: 502 the gateway's next hop is at fault, 504 it
// is late, 503 the proxy itself cannot).
func (c Code) httpStatus() int {
	switch c {
	case NotAllowed:
		return 403
	case HostUnreachable, Refused:
		return 502
	case Expired:
		return 504
	case CommandNotSupported:
		return 501
	case AddressNotSupported:
		return 400
	}
	return 503
}
