package netcfg

// Abandon drops the lock as a kill -9 would and leaves everything else.
func (n *Net) Abandon() {
	n.j.release()
	n.j = nil
}
