//go:build !mini

package applets

import (
	"context"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/peering"
	"skywire/signal"
)

const peerIntroduceAbout = `Tells each of two peered clusters of the other: its key, its gates and our name for it. That is a suggestion and gives nobody a
right. Each side lists it for 30 days (messenger peer list); the two agree by an invite that one of them makes and the other accepts,
as any two clusters do, or dismiss it, and then it does not come back.`

func peerIntroduce(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger peer introduce", "CLUSTER CLUSTER [--json]", peerIntroduceAbout)
	words, err := f.Parse(2, 2)
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		var all []peering.IntroducedInfo
		if err := askPeering(ctx, f, peerTimeout, "peer.introduce", peering.IntroduceParams{Peers: [2]string(words)}, &all); err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(all)
		}
		var failed []string
		for _, i := range all {
			if i.Told {
				e.Talk("messenger", "%s was told of %s", i.To, i.About)
			} else {
				failed = append(failed, i.To+": "+i.Why)
			}
		}
		if len(failed) > 0 {
			return signal.Errorf(signal.ErrUnreachable, "not told: %s", strings.Join(failed, "; "))
		}
		return nil
	})
}

func peerDismiss(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger peer dismiss", "CLUSTER", "Forgets a cluster that was suggested, and every suggestion of it to come, whoever makes it. An invite of it can be accepted\n"+
		"all the same. CLUSTER: the name or the key that messenger peer list shows.")
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		return askPeering(ctx, f, peerTimeout, "peer.dismiss", peering.PeerParams{Peer: words[0]}, nil)
	})
}
