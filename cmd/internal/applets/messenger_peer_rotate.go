//go:build !mini

package applets

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/key"
	"skywire/mesh/peering"
	"skywire/signal"
)

// clusterKeyName is the file of the cluster key in the state directory of whoever has founded the cluster.
const clusterKeyName = "cluster.key"

const peerRotateAbout = `Takes the peerings of a cluster along when its cluster key is replaced. The old cluster key names the new one, and the new one
agrees: nobody on the other side has to accept anything, what it imports keeps its name, and the old key has no word in it
any more. Nodes with certificates of the old cluster are let in by the other side until --overlap is over.

A cluster key can't be changed in place: the cluster that has the new one is another network, and nodes move to it. On the
box that runs the messenger:

    mv cluster.key old.key; mv admin.key old-admin.key      in the --state directory
    skywire node leave
    skywire manager cluster create                          makes the new keys
    skywire messenger peer rotate --old-key old.key
    skywire manager invite …                                for the other nodes, each of which leaves and joins

Both keys are read by this command alone, and are not given to the messenger. A side that is off is told later; peer show says
which know. Two clusters that both rotate before either has heard of the other are peered anew. A peering goes along four times; a new
agreement (peer invite) begins anew.`

func peerRotate(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger peer rotate", "--old-key FILE [--new-key FILE] [flags]", peerRotateAbout)
	var old, next string
	var p peering.RotateParams
	var overlap, timeout time.Duration
	f.StringVar(&old, "old-key", "", "the `FILE` of the cluster key that was")
	f.StringVar(&next, "new-key", "", "the `FILE` of the new one (default: cluster.key in --state)")
	f.DurationVar(&overlap, "overlap", 24*time.Hour, "for how `long` nodes of the old cluster are let in by the other sides; 0: not at all, 720h at most")
	f.ListVar(&p.Gates, "at", "`[KEY@]HOST:PORT` where our gate is reached (repeatable; default: this node's own)")
	f.DurationVar(&timeout, "timeout", peerTimeout, "how `long` to wait for the other sides")
	_, err := f.Parse(0, 0)
	if err == nil && old == "" {
		err = applet.Usagef("--old-key is needed: the file of the cluster key that was")
	}
	if err == nil && (overlap < 0 || overlap > 30*24*time.Hour || timeout <= 0 || timeout > 10*time.Minute) {
		err = applet.Usagef("--overlap or --timeout: out of range")
	}
	if err != nil {
		return f.Exit(err)
	}
	if next == "" {
		next = filepath.Join(f.State, "cluster.key") // as manager cluster create calls it, which not every build has
	}
	p.OverlapS, p.WaitS = int64(overlap/time.Second), int64(timeout/time.Second)
	return f.Duty(ctx, func(ctx context.Context) error { return rotatePeers(ctx, f, p, old, next, timeout) })
}

func rotatePeers(ctx context.Context, f *applet.Flags, p peering.RotateParams, oldFile, newFile string, timeout time.Duration) error {
	var keys [2]*key.Private
	for i, file := range []string{oldFile, newFile} {
		k, err := key.Load(file)
		if err != nil {
			return fmt.Errorf("both cluster keys are needed: %w", err)
		}
		keys[i] = k
	}
	if keys[0].Public() == keys[1].Public() {
		return applet.Usagef("%s and %s hold the same key", oldFile, newFile)
	}
	p.Old = keys[0].Public()
	var draft peering.RotationInfo
	if err := askPeering(ctx, f, peerTimeout, "peer.rotation", p, &draft); err != nil {
		return err
	}
	if draft.New != keys[1].Public() {
		return signal.Errorf(signal.ErrRefused, "%s is not the key of this node's cluster, %s", newFile, draft.New)
	}
	signed, err := draft.Rotation().Sign(keys[0], keys[1])
	if err != nil {
		return err
	}
	p.Signed = signed
	var r peering.RotateResult
	if err := askPeering(ctx, f, timeout+peerTimeout, "peer.rotate", p, &r); err != nil {
		return err
	}
	e := f.Env()
	if f.JSON {
		return e.PrintJSON(r)
	}
	t := e.NewTable("NAME", "STATE", "THEY KNOW", "WHY")
	for _, i := range r.Peerings {
		t.Row(i.Name, i.State, i.Rotated.Told, i.Rotated.Why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Failed != "" {
		return signal.Errorf(signal.ErrRefused, "not carried over, to be peered anew: %s", strings.ReplaceAll(r.Failed, "\n", "; "))
	}
	return nil
}

// rotatedText is the last change of a cluster key, in one line.
func rotatedText(r *peering.RotatedInfo) string {
	at, until := r.At.Local().Format(time.DateTime), r.Until.Local().Format(time.DateTime)
	s := fmt.Sprintf("they have a new cluster key since %s, before it was %s; nodes under that are let in until %s", at, r.From, until)
	if r.By == "us" {
		s = fmt.Sprintf("we have a new cluster key since %s, before it was %s; they know: %s", at, r.From, r.Told)
	}
	if r.Why != "" {
		s += " (" + r.Why + ")"
	}
	return s
}
