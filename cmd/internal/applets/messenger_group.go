//go:build !mini

package applets

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/signal"
)

const messengerGroupAbout = `A group has up to 64 members and a name. Who is in it is a log of signed changes that every member keeps; there is no server, and
any member may be away while others change it.

Admins add, rename and promote; they evict and demote members, and those who became admins after them. Who founded the group
is above all. Of an eviction and an addition that did not see each other the eviction holds. What is said goes to each member by
itself, so who was evicted gets nothing more from anyone who has heard of it.

Members need not be contacts of each other; who is added must be one of who adds. GROUP is a name or the first letters of an id.

    messenger group create hikers anna ben
    messenger group send hikers 'at nine at the bridge'
    messenger tail -f`

// groupCommand is messenger group: a table of verbs of its own.
func groupCommand() applet.Command {
	return applet.Command{Name: "messenger group", Summary: "talk among many", About: messengerGroupAbout, Verbs: []applet.Verb{
		{Name: "create", Args: "NAME [NODE…]", Summary: "found a group with contacts", Run: groupCreate},
		{Name: "list", Aliases: []string{"ls"}, Summary: "the groups that we are in, or were", Run: groupList},
		{Name: "show", Args: "GROUP", Summary: "one, with its members", Run: groupVerb("show", 1, 1, "Shows a group and its members.", groupOnly)},
		{Name: "add", Args: "GROUP NODE…", Summary: "bring in contacts", Run: groupVerb("add", 2, -1,
			"Brings contacts into a group. They get who is in it, and what is said from now on.", groupWho)},
		{Name: "remove", Aliases: []string{"rm"}, Args: "GROUP NODE…", Summary: "evict members", Run: groupVerb("remove", 2, -1,
			"Evicts members. Nothing that they sign later, and no old record, brings them back; an admin can add them again.", groupWho)},
		{Name: "admin", Args: "GROUP NODE… [--off]", Summary: "make members admins, or admins members", Run: groupAdmin},
		{Name: "rename", Args: "GROUP NAME", Summary: "give it another name", Run: groupVerb("rename", 2, 2, "Gives a group another name, for all its members.",
			func(words []string) messenger.GroupParams {
				return messenger.GroupParams{Group: words[0], Name: words[1]}
			})},
		{Name: "leave", Args: "GROUP", Summary: "go", Run: groupVerb("leave", 1, 1, "Leaves a group. The others are told; what was said stays in the history.", groupOnly)},
		{Name: "send", Args: "GROUP [-w STATE] [--timeout S] [TEXT…|-]", Summary: "a message to all members; its id is printed", Run: groupSend},
	}}
}

func groupOnly(words []string) messenger.GroupParams { return messenger.GroupParams{Group: words[0]} }

func groupWho(words []string) messenger.GroupParams {
	return messenger.GroupParams{Group: words[0], Who: words[1:]}
}

// groupVerb asks for a change and prints the group as it is then.
func groupVerb(name string, least, most int, about string, params func(words []string) messenger.GroupParams) applet.Func {
	return func(ctx context.Context, e *applet.Env) int {
		f := applet.NewFlags(e, "messenger group "+name, groupArgs(name)+" [--json]", about)
		words, err := f.Parse(least, most)
		if err != nil {
			return f.Exit(err)
		}
		return tellGroup(ctx, e, f, name, params(words))
	}
}

// groupArgs are the arguments of a verb as its row in the table has them.
func groupArgs(name string) string {
	switch name {
	case "add", "remove":
		return "GROUP NODE…"
	case "rename":
		return "GROUP NAME"
	}
	return "GROUP"
}

func tellGroup(ctx context.Context, e *applet.Env, f *applet.Flags, verb string, p messenger.GroupParams) int {
	var g messenger.ShownGroup
	return tellMessenger(ctx, f, "group."+verb, p, &g, func() error { return printGroup(e, &g) })
}

func printGroup(e *applet.Env, g *messenger.ShownGroup) error {
	fmt.Fprintf(e.Stdout, "group    %s\nname     %s\nmembers  %d\nstate    %s, %d changes\n", g.ID, oneLine(g.Name), len(g.Members), g.Epoch, g.Changes)
	if !g.Member {
		fmt.Fprintln(e.Stdout, "we are not in it any more")
	}
	t := e.NewTable("MEMBER", "RANK", "KEY")
	for _, m := range g.Members {
		t.Row(memberWord(m), rankWord(m), m.Account)
	}
	return t.Flush()
}

func memberWord(m messenger.ShownMember) string {
	switch {
	case m.Self:
		return "(we)"
	case m.Name != "":
		return m.Name
	}
	return m.Account.Short()
}

func rankWord(m messenger.ShownMember) string {
	switch {
	case m.Founder && m.Admin:
		return "founder"
	case m.Admin:
		return "admin"
	}
	return "member"
}

func groupCreate(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger group create", "NAME [NODE…] [--json]",
		"Founds a group with confirmed contacts, and prints it. The founder is above all other admins, and the one whose box keeps the log short.")
	words, err := f.Parse(1, -1)
	if err != nil {
		return f.Exit(err)
	}
	return tellGroup(ctx, e, f, "create", messenger.GroupParams{Name: words[0], Who: words[1:]})
}

func groupAdmin(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger group admin", "GROUP NODE… [--off] [--json]",
		"Makes members admins. With --off admins are members again: oneself, and those who became admins later than we did.")
	off := f.Bool("off", false, "make them members")
	words, err := f.Parse(2, -1)
	if err != nil {
		return f.Exit(err)
	}
	return tellGroup(ctx, e, f, "admin", messenger.GroupParams{Group: words[0], Who: words[1:], Off: *off})
}

func groupList(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger group list", "[--json]", "Lists the groups that we are in, or were.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	var all []messenger.ShownGroup
	return tellMessenger(ctx, f, "group.list", nil, &all, func() error {
		t := e.NewTable("ID", "NAME", "WE ARE", "MEMBERS")
		for _, g := range all {
			we := "not in it"
			var names []string
			for _, m := range g.Members {
				if m.Self {
					we = rankWord(m)
				} else {
					names = append(names, memberWord(m))
				}
			}
			t.Row(g.ID[:8], oneLine(g.Name), we, strings.Join(names, " "))
		}
		return t.Flush()
	})
}

func groupSend(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger group send", "GROUP [-w relayed|delivered|read] [--timeout S] [TEXT…|-]",
		"Sends a text to all members of a group and prints its id. -w waits until it has come so far with all of them, see messenger send.")
	want := f.String("w", "", "wait for this `STATE`")
	timeout := f.Float64("timeout", 0, "wait so many `SECONDS` at most (default: as long as the message lives)")
	words, err := f.Parse(1, -1)
	state := messenger.State(0)
	if err == nil && *want != "" {
		if err = state.UnmarshalText([]byte(*want)); err != nil || state == messenger.Failed || state == messenger.Received {
			err = applet.Usagef("-w %s: relayed, delivered or read", *want)
		}
	}
	if err == nil && (*timeout < 0 || *timeout > 0 && state == 0) {
		err = applet.Usagef("--timeout is how long -w waits, in seconds")
	}
	if err != nil {
		return f.Exit(err)
	}
	text, err := textFrom(e, words[1:])
	if err != nil {
		return f.Exit(err)
	}
	p := messenger.GroupParams{Group: words[0], Text: text}
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error {
		return groupSendAndWait(ctx, f, c, p, state, *timeout)
	})
}

func groupSendAndWait(ctx context.Context, f *applet.Flags, c *signal.Conn, p messenger.GroupParams, want messenger.State, timeout float64) error {
	var sent messenger.IDResult
	limited, cancel := context.WithTimeout(ctx, messengerTimeout)
	err := c.Call(limited, "group.send", p, &sent)
	cancel()
	switch {
	case err != nil:
		return err
	case want == 0 && f.JSON:
		return f.Env().PrintJSON(sent)
	case !f.JSON:
		fmt.Fprintln(f.Env().Stdout, sent.ID)
	}
	if want == 0 {
		return nil
	}
	m, raw, err := waitMessage(ctx, c, sent.ID, want, timeout)
	if f.JSON && raw != nil {
		err = errors.Join(f.Env().PrintJSON(raw), err)
	}
	if err != nil {
		return err
	}
	return reached(m, want)
}
