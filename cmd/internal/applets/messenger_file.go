//go:build !mini

package applets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/signal"
)

const messengerFileAbout = `Offers a file to a contact and prints its id. It goes in pieces, and goes on where it was after a cut or a restart; the file must
stay where it is, unchanged, until it is there. They take it by themselves up to the size that they have set, or by files accept. While one of
both is off a mailbox keeps up to 96 KiB of it, and more when they have come for that. For this both have to have a mailbox (messenger
run --mailbox), which may be the same one: without one of ours their word does not come back to us, and the file goes only while both are on.

-w waits until it is there: exit status 0 if so, 1 if it was refused, has failed or time is up.`

func messengerFile(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger file", "NODE PATH [-w] [--timeout S] [--json]", messengerFileAbout)
	wait := f.Bool("w", false, "wait until it is there")
	timeout := f.Float64("timeout", 0, "wait so many `SECONDS` at most (default: no limit)")
	words, err := f.Parse(2, 2)
	if err == nil && (*timeout < 0 || *timeout > 0 && !*wait) {
		err = applet.Usagef("--timeout is how long -w waits, in seconds")
	}
	if err != nil {
		return f.Exit(err)
	}
	return askMessenger(ctx, f, func(ctx context.Context, c *signal.Conn) error {
		path, err := filepath.Abs(words[1])
		if err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err == nil && !st.Mode().IsRegular() {
			err = fmt.Errorf("%s is no file", path)
		}
		if err != nil {
			return err
		}
		var sent messenger.FileInfo
		if err := c.Call(ctx, "file.send", messenger.FileParams{To: words[0], Path: path}, &sent); err != nil {
			return err
		}
		if !f.JSON {
			fmt.Fprintln(e.Stdout, sent.ID)
		}
		if *wait {
			if *timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(*timeout*float64(time.Second)))
				defer cancel()
			}
			sent, err = waitFile(ctx, c, sent)
		}
		if f.JSON {
			err = errors.Join(e.PrintJSON(sent), err)
		}
		return err
	})
}

// fileLook is how often a file that is waited for is looked at.
const fileLook = 200 * time.Millisecond

func waitFile(ctx context.Context, c *signal.Conn, file messenger.FileInfo) (messenger.FileInfo, error) {
	tick := time.NewTicker(fileLook)
	defer tick.Stop()
	for {
		switch file.State {
		case messenger.FileDone:
			return file, nil
		case messenger.FileRefused, messenger.FileFailed, messenger.FileCanceled:
			return file, fmt.Errorf("%s %s: %s", file.Name, file.State, file.Reason)
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return file, fmt.Errorf("%s is not there in time: %s, %s; it goes on by itself (messenger files)", file.Name, file.State, doneWord(file))
			}
			return file, ctx.Err()
		case <-tick.C:
		}
		var now messenger.FileInfo
		if err := c.Call(context.WithoutCancel(ctx), "file.show", messenger.FileParams{ID: file.ID}, &now); err != nil {
			return file, err
		}
		file = now
	}
}

func doneWord(f messenger.FileInfo) string {
	text := applet.Bytes(uint64(max(0, f.Done))) + " of " + applet.Bytes(uint64(max(0, f.Size)))
	if f.Stored > 0 {
		text += ", " + applet.Bytes(uint64(f.Stored)) + " stored"
	}
	return text
}

const messengerFilesAbout = `Lists the files that were offered, ours and theirs. files accept ID takes one that waits for a word, files refuse ID does not. They
are written to the folder that the messenger runs with (--files), under their own names, never over another file.`

func messengerFiles(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger files", "[accept ID|refuse ID] [--json]", messengerFilesAbout)
	words, err := f.Parse(0, 2)
	if err == nil && len(words) > 0 && (len(words) != 2 || words[0] != "accept" && words[0] != "refuse") {
		err = applet.Usagef("want accept ID, refuse ID, or nothing")
	}
	if err != nil {
		return f.Exit(err)
	}
	if len(words) == 2 {
		var one messenger.FileInfo
		return tellMessenger(ctx, f, "file."+words[0], messenger.FileParams{ID: words[1]}, &one, func() error { return printFiles(e, []messenger.FileInfo{one}) })
	}
	var all []messenger.FileInfo
	return tellMessenger(ctx, f, "file.list", nil, &all, func() error { return printFiles(e, all) })
}

func printFiles(e *applet.Env, all []messenger.FileInfo) error {
	t := e.NewTable("ID", "WITH", "WAY", "STATE", "DONE", "NAME", "WHERE", "REASON")
	for _, x := range all {
		way := "in"
		if x.Out {
			way = "out"
		}
		t.Row(x.ID[:min(10, len(x.ID))], shown(x.With, "", x.Account.String()), way, string(x.State), doneWord(x), x.Name, x.Path, x.Reason)
	}
	return t.Flush()
}
