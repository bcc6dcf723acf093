package applets

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/tracker"
	"skywire/socks/proxy"
)

// trackerTimeout bounds one question to a tracker: the exits found otherwise wait for it.
const trackerTimeout = 3 * time.Second

// socksFinders asks trackers for exits, beside the records that the node holds itself: HOST:PORT over TCP, anything else
// is a node and asked over the mesh.
func socksFinders(node *app.Client, trackers []string) []proxy.Finder {
	var all []proxy.Finder
	for _, where := range trackers {
		all = append(all, func(ctx context.Context) ([]key.Public, error) {
			ctx, cancel := context.WithTimeout(ctx, trackerTimeout)
			defer cancel()
			keys, err := askTracker(ctx, node, where)
			if err != nil {
				return nil, fmt.Errorf("tracker %s: %w", where, err)
			}
			return keys, nil
		})
	}
	return all
}

func dialTracker(ctx context.Context, node *app.Client, where string) (*tracker.Client, error) {
	if _, _, err := net.SplitHostPort(where); err == nil {
		return tracker.DialTCP(ctx, where)
	}
	k, err := node.Resolve(ctx, where)
	if err != nil {
		return nil, err
	}
	return tracker.Dial(ctx, node, k)
}

func askTracker(ctx context.Context, node *app.Client, where string) ([]key.Public, error) {
	c, err := dialTracker(ctx, node, where)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	entries, err := c.List(ctx, proxy.Service)
	if err != nil {
		return nil, err
	}
	self := node.Self().Key
	var keys []key.Public
	for _, e := range entries {
		if e.Name == proxy.Service && e.Key != self {
			keys = append(keys, e.Key)
		}
	}
	return keys, nil
}

// checkTrackers refuses what an exit cannot announce itself to: over TCP a tracker takes signed records alone, and those
// are the node's to send.
func checkTrackers(trackers []string) error {
	for _, where := range trackers {
		if _, _, err := net.SplitHostPort(where); err == nil {
			return applet.Usagef("--tracker %s: an exit announces itself over the mesh: name the tracker's node", where)
		}
	}
	return nil
}

// announceExit keeps the exit in a tracker until ctx ends.
func announceExit(ctx context.Context, node *app.Client, where string, log *slog.Logger) {
	dial := func(ctx context.Context) (*tracker.Client, error) { return dialTracker(ctx, node, where) }
	tracker.Announce(ctx, dial, []tracker.Service{{Name: proxy.Service, Type: proxy.Service}}, log)
}
