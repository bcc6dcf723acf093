//go:build !mini

package applets

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
)

func contactCommand() applet.Command {
	plain := func(name, method, about string) applet.Func {
		return func(ctx context.Context, e *applet.Env) int { return contactDo(ctx, e, name, method, about) }
	}
	return applet.Command{
		Name:    "messenger contact",
		Summary: "who may write to us, and to whom we write",
		About: "An account is confirmed when both sides have said so: by an invite, which is one word, and taking it, which is the other;\n" +
			"or by contact add on one side and contact confirm on the other. Nothing is sent to one that is not confirmed.\n\n" +
			"A contact is asked (we asked), asking (they did), confirmed, blocked, or changed: it is said to have another key. To a changed\n" +
			"one nothing is sent, and what it sends is held, until somebody has compared the safety number and said contact confirm.",
		Verbs: []applet.Verb{
			{Name: "invite", Args: "[--name NAME] [--uses N] [--expires D] [--qr]", Summary: "a link that makes who takes it a contact", Run: contactInvite},
			{Name: "add", Args: "LINK|NODE [--name NAME] [--hello TEXT]", Summary: "take a link, or ask a node", Run: contactAdd},
			{Name: "list", Aliases: []string{"ls"}, Summary: "all, with how they stand", Run: contactList},
			{Name: "show", Args: "NODE", Summary: "one", Run: contactShow},
			{Name: "verify", Args: "NODE [--number DIGITS|--yes|--no]", Summary: "the safety number: 60 digits that both sides see alike", Run: contactVerify},
			{Name: "confirm", Args: "NODE [--name NAME] [--number DIGITS|--yes]", Summary: "say yes: to one who asks, or to a new key", Run: contactConfirm},
			{Name: "keep", Args: "NODE", Summary: "say no to a new key: the old one is the right one", Run: plain("keep", "contact.keep", "Says that the key that we hold is the right one, and goes on as before.")},
			{Name: "allow", Args: "NODE none|read|operate|admin", Summary: "what it may have this box do, see messenger ctl", Run: contactAllow},
			{Name: "rename", Args: "NODE [NAME]", Summary: "another name of ours for it, or none", Run: contactRename},
			{Name: "block", Args: "NODE", Summary: "take nothing more of it, and tell it nothing", Run: plain("block", "contact.block", "Takes nothing more of an account, whether it is a contact or not, and tells it nothing. Its rights over this box are gone.")},
			{Name: "unblock", Args: "NODE", Summary: "let it stand as before", Run: plain("unblock", "contact.unblock", "Lets a blocked account stand where it stood before, without the rights over this box that it had.")},
			{Name: "remove", Aliases: []string{"rm"}, Args: "NODE", Summary: "forget it; it is told", Run: plain("remove", "contact.remove", "Forgets a contact, and tells it so. What was said stays in the history.")},
			{Name: "withdraw", Summary: "make all invites void that nobody has taken", Run: contactWithdraw},
			{Name: "moved", Args: "OLD_KEY_FILE", Summary: "tell contacts that this account had another key before", Run: contactMoved},
		},
	}
}

// contactDo is a verb that does one thing to one contact.
func contactDo(ctx context.Context, e *applet.Env, name, method, about string) int {
	f := applet.NewFlags(e, "messenger contact "+name, "NODE [--json]", about)
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	return contactCall(ctx, f, method, messenger.ContactParams{Who: words[0]})
}

// contactCall does something to a contact and says how it stands then.
func contactCall(ctx context.Context, f *applet.Flags, method string, p messenger.ContactParams) int {
	var c messenger.ContactInfo
	return tellMessenger(ctx, f, method, p, &c, func() error {
		f.Env().Talk(messengerName, "%s", standingWords(c))
		return nil
	})
}

// standingWords says how a contact stands, and what can be done.
func standingWords(c messenger.ContactInfo) string {
	who := shown(c.Name, c.Claims, c.Account.String())
	switch c.Standing {
	case messenger.Confirmed:
		return who + " is a contact"
	case messenger.Asked:
		return who + " is asked; messages wait until they confirm"
	case messenger.Asking:
		return who + " asks to be a contact: messenger contact confirm " + c.Account.String()
	case messenger.Blocked:
		return who + " is blocked"
	case messenger.Changed:
		return who + " is said to have another key, nothing is sent to it; messenger contact verify " + who
	}
	return who + " is no contact"
}

const contactInviteAbout = `Prints a link, alone on standard output. Who takes it (contact add LINK) is a contact at once, and we are theirs: making it and
taking it are the two words. So hand it over like a key, to the one it is for. It is good once, for 7 days, unless told
otherwise; contact withdraw makes it void.`

func contactInvite(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact invite", "[--name NAME] [--uses N] [--expires D] [--qr] [--json]", contactInviteAbout)
	name := f.String("name", "", "our `NAME` for who takes it")
	uses := f.Int("uses", 1, "how many may take it, `N` of 1 to 100")
	expires := f.Duration("expires", messenger.DefaultExpiry, "void after this `TIME`")
	qr := f.Bool("qr", false, "draw it as a QR code, too")
	_, err := f.Parse(0, 0)
	if err == nil && (*uses < 1 || *uses > 100) {
		err = applet.Usagef("--uses %d: 1 to 100", *uses)
	}
	if err == nil && *expires < time.Second {
		err = applet.Usagef("--expires %s: at least a second", *expires)
	}
	if err == nil && *name != "" && *uses > 1 {
		err = applet.Usagef("--name is for one: leave --uses away")
	}
	if err != nil {
		return f.Exit(err)
	}
	var inv messenger.Invited
	p := messenger.ContactParams{Name: *name, Uses: *uses, Life: int64(expires.Seconds())}
	return tellMessenger(ctx, f, "contact.invite", p, &inv, func() error { return printLink(e, inv.Link, inv.QR, *qr) })
}

const contactAddAbout = `Takes a contact link (skywire:contact?…, from contact invite or messenger id), or asks a node of this mesh by key or name. A link
of an invite makes both sides contacts as soon as they are reached, now or later; otherwise they are asked, and a person there
says contact confirm.

If NAME is that of another contact, that one counts as changed: this may be its new key, or somebody who wants to be taken
for it. Compare the safety number before contact confirm.`

func contactAdd(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact add", "LINK|NODE [--name NAME] [--hello TEXT] [--json]", contactAddAbout)
	name := f.String("name", "", "our `NAME` for it: letters a to z, digits, inner hyphens")
	hello := f.String("hello", "", "a `TEXT` that they read when they are asked, 200 bytes at most")
	words, err := f.Parse(1, 1)
	if err == nil && len(*hello) > 200 {
		err = applet.Usagef("--hello: %d bytes, 200 at most", len(*hello))
	}
	if err != nil {
		return f.Exit(err)
	}
	return contactCall(ctx, f, "contact.add", messenger.ContactParams{Who: words[0], Name: *name, Hello: *hello})
}

func contactList(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact list", "[--json]", "Lists all contacts, with those who ask.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	var all []messenger.ContactInfo
	return tellMessenger(ctx, f, "contact.list", nil, &all, func() error {
		t := e.NewTable("NAME", "STANDING", "SINCE", "VERIFIED", "SEEN", "MAY", "CALLS ITSELF", "KEY")
		for _, c := range all {
			seen := ago(c.Seen)
			if c.Online {
				seen = "here"
			}
			t.Row(c.Name, c.Standing, ago(c.Since), yesWord(c.Verified), seen, mayWord(c.Control), oneLine(c.Claims), c.Account)
		}
		return t.Flush()
	})
}

func yesWord(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func mayWord(s messenger.Scope) string {
	if s == messenger.ScopeNone {
		return ""
	}
	return s.String()
}

func contactShow(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact show", "NODE [--json]", "Shows one contact, with its safety number.")
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	var c messenger.ContactInfo
	return tellMessenger(ctx, f, "contact.show", messenger.ContactParams{Who: words[0]}, &c, func() error {
		fmt.Fprintf(e.Stdout, "key       %s\nname      %s\ncalls itself %q\nstanding  %s since %s\nverified  %s\nmay       %s\nsafety number\n  %s\n",
			c.Account, c.Name, c.Claims, standingOf(c), c.Since.Local().Format(time.DateTime), yesWord(c.Verified), c.Control, c.Safety)
		if c.Hello != "" {
			fmt.Fprintf(e.Stdout, "said      %q\n", c.Hello)
		}
		if c.NewAccount != nil {
			by := "somebody wants its name"
			if c.Signed {
				by = "it says so itself, signed by both keys"
			}
			fmt.Fprintf(e.Stdout, "new key   %s (%s); the safety number is that of this key\n", c.NewAccount, by)
		}
		return nil
	})
}

func standingOf(c messenger.ContactInfo) string {
	if c.Standing == messenger.Stranger {
		return "no contact"
	}
	return string(c.Standing)
}

const contactVerifyAbout = `Prints the safety number of NODE and us: 60 digits, the same on both sides if nobody is between. Read it to each other, by
telephone or face to face. --number compares with what they have read to you, and --yes notes that you have compared it
yourself; --no takes that back.`

func contactVerify(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact verify", "NODE [--number DIGITS|--yes|--no] [--json]", contactVerifyAbout)
	number := f.String("number", "", "compare with these `DIGITS`; spaces count nothing")
	yes := f.Bool("yes", false, "it was compared, and is the same")
	no := f.Bool("no", false, "it counts as not compared")
	words, err := f.Parse(1, 1)
	if err == nil && (*yes && *no || *number != "" && (*yes || *no)) {
		err = applet.Usagef("one of --number, --yes and --no")
	}
	if err != nil {
		return f.Exit(err)
	}
	p := messenger.ContactParams{Who: words[0], Number: *number}
	if *yes || *no {
		p.Yes = yes
	}
	var c messenger.ContactInfo
	return tellMessenger(ctx, f, "contact.verify", p, &c, func() error {
		if c.Verified {
			e.Talk(messengerName, "%s is verified", shown(c.Name, c.Claims, c.Account.String()))
		}
		_, err := fmt.Fprintln(e.Stdout, c.Safety)
		return err
	})
}

const contactConfirmAbout = `Says yes to one who asks. To a contact whose key has changed it says that the new key is theirs: compare the safety number first
(contact verify), and give it here, or --yes. The contact goes on under the new key with its name, and without the rights over
this box that it had.`

func contactConfirm(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact confirm", "NODE [--name NAME] [--number DIGITS|--yes] [--json]", contactConfirmAbout)
	name := f.String("name", "", "our `NAME` for it")
	number := f.String("number", "", "the safety number's `DIGITS` as they read them; another one is refused")
	yes := f.Bool("yes", false, "of a changed key: the number was compared")
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	p := messenger.ContactParams{Who: words[0], Name: *name, Number: *number}
	if *yes {
		p.Yes = yes
	}
	return contactCall(ctx, f, "contact.confirm", p)
}

const contactAllowAbout = `Sets what a confirmed contact may have this box do by message (messenger ctl, on its side); nothing, unless told here.

    none     nothing
    read     look: status, ps, ru, logs
    operate  start, stop and restart what is configured
    admin    change the configuration, too

messenger audit shows what it did, and what was refused.`

func contactAllow(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact allow", "NODE none|read|operate|admin [--json]", contactAllowAbout)
	words, err := f.Parse(2, 2)
	if err == nil {
		if _, bad := messenger.ParseScope(words[1]); bad != nil {
			err = applet.Usagef("%v", bad)
		}
	}
	if err != nil {
		return f.Exit(err)
	}
	return contactCall(ctx, f, "contact.allow", messenger.ContactParams{Who: words[0], Scope: words[1]})
}

func contactRename(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact rename", "NODE [NAME] [--json]", "Gives a contact another name of ours, or, without NAME, none. Nobody is told. The node of this box knows it by that name too.")
	words, err := f.Parse(1, 2)
	if err != nil {
		return f.Exit(err)
	}
	p := messenger.ContactParams{Who: words[0]}
	if len(words) == 2 {
		p.Name = words[1]
	}
	return contactCall(ctx, f, "contact.rename", p)
}

func contactWithdraw(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact withdraw", "[--json]", "Makes all invites void that nobody has taken.")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	var n messenger.CountResult
	return tellMessenger(ctx, f, "contact.withdraw", nil, &n, func() error {
		e.Talk(messengerName, "%d invites are void", n.Count)
		return nil
	})
}

const contactMovedAbout = `For a box that has a new key: signs, with the key that it had (OLD_KEY_FILE, a node.key) and the one that it has, that the one
is the other now, and tells all contacts. They see the contact as changed, and a person there confirms it after a look at the
safety number. Bring the contacts over first: messenger export on the old box, messenger import here.`

func contactMoved(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger contact moved", "OLD_KEY_FILE [--json]", contactMovedAbout)
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	raw, err := movedStatement(f, words[0])
	if err != nil {
		return f.Exit(err)
	}
	var n messenger.CountResult
	return tellMessenger(ctx, f, "contact.moved", messenger.MovedParams{Statement: raw}, &n, func() error {
		e.Talk(messengerName, "%d contacts are told", n.Count)
		return nil
	})
}

// errSameKey is returned when an account is to have moved to the key that it has.
var errSameKey = errors.New("this is the key that the box has now")
