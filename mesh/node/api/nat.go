package api

// NATStatus is what is between this node and the internet, and what punching made of it.
type NATStatus struct {
	Kind      string   `json:"kind"` // for people: none, port restricted cone, symmetric, …
	Seen      []string `json:"seen"` // where neighbours outside see us, the newest first
	Observers int      `json:"observers"`
	CGNAT     bool     `json:"cgnat"` // something speaks for a NAT of the provider's
	Punched   int      `json:"punched"`
	Punching  bool     `json:"punching"`               // false: switched off
	KeepAlive int      `json:"keep_alive_s,omitempty"` // how long idle links may be silent, as measured; 0: not measured
}
