package netcfg

// Leftover is something of ours that nobody owns any more.
type Leftover struct {
	Device string `json:"device,omitempty"` // where it is one device's
	What   string `json:"what"`
}
