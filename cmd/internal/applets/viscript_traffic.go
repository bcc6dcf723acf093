package applets

import (
	"context"
	"path/filepath"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/node/api"
	"skywire/signal"
)

// trafficTimeout bounds the questions to the node for ru: a number must not hold up the others.
const trafficTimeout = time.Second

// meshTraffic asks the node of this box for supervisor.Config.Mesh. An app has what its registrations in the node carry; the
// node's own process has what its links do.
func meshTraffic(run string) func(context.Context, func(pid int) bool) (rx, tx uint64, ok bool) {
	return func(ctx context.Context, has func(pid int) bool) (rx, tx uint64, ok bool) {
		ctx, cancel := context.WithTimeout(ctx, trafficTimeout)
		defer cancel()
		node, err := signal.Dial(ctx, filepath.Join(run, app.SocketName), nil)
		if err != nil {
			return 0, 0, false
		}
		defer node.Close()
		if cred, err := node.Peer(); err == nil && has(cred.PID) {
			var st struct {
				Rx uint64 `json:"rx_bytes"`
				Tx uint64 `json:"tx_bytes"`
			}
			err := node.Call(ctx, "node.status", nil, &st)
			return st.Rx, st.Tx, err == nil
		}
		var list []api.App
		if node.Call(ctx, "app.list", nil, &list) != nil {
			return 0, 0, false
		}
		for _, a := range list {
			if has(a.PID) {
				rx, tx, ok = rx+a.RxBytes, tx+a.TxBytes, true
			}
		}
		return rx, tx, ok
	}
}
