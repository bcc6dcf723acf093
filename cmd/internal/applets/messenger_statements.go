//go:build !mini

package applets

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
)

const messengerStatementsAbout = `Lists the signed statements of ledgers that came by message, the newest last. No app here reads them: they are kept as they came, and
their senders are told so. statements show ID shows one whole (with --json its account and device too, and the body in base64),
statements drop ID makes room: at most 256 are kept, 64 of one account. Nothing here has looked at what they say or at who signed it;
FROM is who brought it.`

func messengerStatements(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger statements", "[show ID|drop ID] [--json]", messengerStatementsAbout)
	words, err := f.Parse(0, 2)
	if err == nil && len(words) > 0 && (len(words) != 2 || words[0] != "show" && words[0] != "drop") {
		err = applet.Usagef("want show ID, drop ID, or nothing")
	}
	if err != nil {
		return f.Exit(err)
	}
	table := func(all ...messenger.StatementInfo) error {
		t := e.NewTable("ID", "TIME", "FROM", "BYTES")
		for _, x := range all {
			t.Row(x.ID[:min(10, len(x.ID))], x.Time.Local().Format("01-02 15:04:05"), shown(x.With, "", x.Account.String()), x.Bytes)
		}
		return t.Flush()
	}
	if len(words) == 2 {
		var one messenger.StatementInfo
		return tellMessenger(ctx, f, "statement."+words[0], messenger.StatementParams{ID: words[1]}, &one, func() error {
			if words[0] == "drop" {
				fmt.Fprintf(e.Stderr, "messenger: statement %s is dropped\n", one.ID)
				return nil
			}
			err := table(one)
			_, printed := fmt.Fprintln(e.Stdout, strconv.QuoteToASCII(string(one.Body))) // a stranger's bytes don't go to a terminal as they are
			return errors.Join(err, printed)
		})
	}
	var all []messenger.StatementInfo
	return tellMessenger(ctx, f, "statement.list", nil, &all, func() error { return table(all...) })
}
