package meshtest

import "time"

// Leave stops a node in order, as a signal would: it announces that it goes, and goes when nobody needs it any more.
func (nd *Node) Leave() {
	if nd.Core == nil {
		return
	}
	life := nd.alive
	var look func()
	look = func() {
		if nd.alive != life || nd.Core == nil {
			return
		}
		if !nd.Core.Leave(nd.clock()) {
			nd.net.After(20*time.Millisecond, look)
			return
		}
		nd.Save()
		nd.Core.Close(nd.clock())
		nd.Stop()
	}
	look()
}
