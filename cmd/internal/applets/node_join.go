package applets

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/node"
	"skywire/mesh/node/api"
)

const nodeJoinAbout = `Makes the node of this box a member of the cluster that INVITE (skywire:join?…, from "manager invite") leads to. Once is enough:
the node keeps it, renews its certificate by itself, and finds its neighbours again after a restart. - reads it from stdin, where
other users of this box don't see it.

A node that runs leaves its present network, open or static, and begins anew in the cluster's without a restart of the process; apps
follow. One that does not run joins when it is started: node run. What --open and --allow say has no effect from then on.`

// Waiting for the node to become a member.
const (
	joinWait = 90 * time.Second
	joinLook = 200 * time.Millisecond
	joinLost = 15 * time.Second // the node begins anew in between
)

func nodeJoin(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node join", "INVITE|- [--wait D]", nodeJoinAbout)
	wait := f.Duration("wait", joinWait, "how long to wait for the certificate; the node goes on after that")
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	text := words[0]
	if text == "-" {
		line, err := bufio.NewReader(io.LimitReader(e.Stdin, 2*member.MaxInviteText)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return f.Exit(err)
		}
		text = strings.TrimSpace(line)
	}
	v, err := member.ParseInvite(text)
	if err != nil {
		return f.Exit(applet.Usagef("%v", err))
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		c, err := app.Dial(ctx, f.Run)
		if errors.Is(err, app.ErrNotRunning) {
			return joinLater(f, v, text)
		}
		if err != nil {
			return err
		}
		err = c.Call(ctx, "member.join", api.InviteParams{Invite: text}, nil)
		_ = c.Close()
		if err != nil && !errors.Is(err, app.ErrNotRunning) {
			return err
		}
		return awaitMember(ctx, f, v.Cluster, *wait)
	})
}

// joinLater leaves word for a node that does not run.
func joinLater(f *applet.Flags, v *member.Invite, text string) error {
	have, err := node.ReadCluster(f.State)
	if err != nil {
		return err
	}
	if have, err = have.With(v, text); err == nil {
		err = node.WriteCluster(f.State, have)
	}
	if err != nil {
		return withRemedy(err)
	}
	fmt.Fprintln(f.Env().Stderr, "node: it does not run; it joins when it is started: skywire node run")
	return nil
}

// awaitMember asks until the node is a member, has to wait for a person, or was refused.
func awaitMember(ctx context.Context, f *applet.Flags, cluster key.Public, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	look := time.NewTicker(joinLook)
	defer look.Stop()
	var last api.Membership
	told, lost := "", time.Now()
	for {
		m, err := askMembership(ctx, f)
		switch {
		case err != nil && time.Since(lost) > joinLost:
			return err
		case err != nil || m.Cluster != cluster.String():
		case m.State == "member":
			return printMembership(f, m)
		case m.State == "refused" || m.State == "revoked":
			return applet.WithCode(applet.Refused, fmt.Errorf("%s: %s", m.State, m.Why))
		default:
			last, lost = m, time.Now()
			if m.State == "pending" && told != m.State {
				fmt.Fprintln(f.Env().Stderr, "node: waits for approval, there: skywire manager approve "+nodeKey(ctx, f))
				told = m.State
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not a member yet (%s: %s); the node goes on trying: skywire node membership", last.State, last.Why)
		case <-look.C:
		}
	}
}

func nodeKey(ctx context.Context, f *applet.Flags) string {
	c, err := app.Dial(ctx, f.Run)
	if err != nil {
		return "KEY"
	}
	defer c.Close()
	return c.Self().Key.String()
}

func askMembership(ctx context.Context, f *applet.Flags) (m api.Membership, err error) {
	c, err := app.Dial(ctx, f.Run)
	if err != nil {
		return m, err
	}
	defer c.Close()
	return m, c.Call(ctx, "member.status", nil, &m)
}

func printMembership(f *applet.Flags, m api.Membership) error {
	if f.JSON {
		return f.Env().PrintJSON(m)
	}
	writeMembership(f.Env().Stdout, m)
	return nil
}

// writeMembership shows membership in lines, as node status does.
func writeMembership(w io.Writer, m api.Membership) {
	fmt.Fprintf(w, "mode      %s\n", m.Mode)
	if m.Cluster == "" {
		return
	}
	why := ""
	if m.State != "member" {
		why = ": " + m.Why
	}
	fmt.Fprintf(w, "cluster   %s\nstanding  %s%s\n", m.Cluster, m.State, why)
	if c := m.Certificate; c != nil {
		fmt.Fprintf(w, "named     %s (%s), serial %d, until %s, renewed from %s on\n",
			c.Name, strings.Join(c.Roles, " "), c.Serial, c.NotAfter.Format(time.DateOnly), c.Renew.Format(time.DateOnly))
	}
	fmt.Fprintf(w, "clock     %s; it is %s at least\nmembers   %d, %d guests linked\n", m.Clock, m.Floor.Format(time.DateOnly), m.Members, m.Guests)
	for _, n := range m.Conflicts {
		fmt.Fprintf(w, "conflict  name %s stands in more than one certificate\n", n)
	}
}

func nodeLeave(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node leave", "", "Makes the node of this box forget its cluster: it is open or static again, as its flags say. Its certificate stays\n"+
		"valid until it runs out; a manager can revoke it.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		c, err := app.Dial(ctx, f.Run)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Call(ctx, "member.leave", nil, nil)
	})
}

func nodeMembership(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node membership", "[--json]", "Shows to which cluster the node of this box belongs, its certificate, and what its clock is worth there.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return show(ctx, f, "member.status", nil, func(m api.Membership) error {
		writeMembership(e.Stdout, m)
		return nil
	})
}

// networkOf is the network of the node whose state lies there: its cluster's, or that of open and static meshes.
func networkOf(state string) key.NetworkID {
	if c, err := node.ReadCluster(state); err == nil && !c.Key.IsZero() {
		return key.Cluster(c.Key)
	}
	return key.Open()
}
