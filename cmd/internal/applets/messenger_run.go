//go:build !mini

package applets

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"skywire/cmd/internal/applet"
	"skywire/mesh/key"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/prekeys"
	"skywire/mesh/store"
	"skywire/signal"
)

const messengerRunAbout = `Runs the messenger of this box, beside its node; while the node is away messages wait in the queue.

The account is the node's own key (self), or the cluster's (cluster): then every node whose certificate has the role messenger
is a device of it, all have one history, and they keep each other's mail. Contacts, queue and history are kept in --state
(messenger.db, sealed with messenger.key), or in memory with --ram.

Strangers may ask to be contacts as --strangers says: closed, only by an invite; stamp, after some seconds of work of their
box; open, anyone, within narrow quotas. Files of contacts go to the --files folder, by themselves up to --files-auto.

Hooks are programs or addresses of config.yaml that hear of what comes; a program gets the event as JSON on standard input and
SKYWIRE_EVENT, _ACCOUNT, _NAME and others in its environment, at most 4 at once:

    messenger:
      hooks:
        - {on: [message], with: [ann], exec: [/usr/local/bin/blink], time: 10s}
        - {on: [message, presence, file, contact], post: http://127.0.0.1:8080/event}`

func messengerRun(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "messenger run", "[--account self|cluster] [--strangers closed|stamp|open] [flags]", messengerRunAbout)
	c := messengerConfig{Account: "self", Strangers: "closed", StampBits: 18, FilesAuto: "10MB", FilesMax: "1GB", FilesSpare: "16MB"}
	f.StringVar(&c.Account, "account", c.Account, "who we are: `WHO` is self or cluster")
	f.StringVar(&c.Name, "name", "", "what we call ourselves, shown to contacts: a `NAME` of 64 bytes at most (default: the host's)")
	f.StringVar(&c.Strangers, "strangers", c.Strangers, "`POLICY` for who is no contact: closed, stamp, open")
	f.IntVar(&c.StampBits, "stamp-bits", c.StampBits, "`N` bits of work that a stamp takes, 8 to 26; each doubles it")
	f.StringVar(&c.Quota, "quota", "", "`SIZE` of the store, as 4MB (default: 4MB on a box below 192 MB of memory, else 64MB)")
	f.BoolVar(&c.RAM, "ram", false, "keep nothing on disk: contacts and messages are gone with the process")
	f.StringVar(&c.Passphrase, "passphrase-file", "", "a `FILE` whose first line opens messenger.key, too")
	f.StringVar(&c.Files, "files", "", "`DIR` for files that come (default: none are taken)")
	f.StringVar(&c.FilesAuto, "files-auto", c.FilesAuto, "files of contacts up to this `SIZE` are taken without a word; 0: none")
	f.StringVar(&c.FilesMax, "files-max", c.FilesMax, "files above this `SIZE` are refused")
	f.StringVar(&c.FilesSpare, "files-spare", c.FilesSpare, "`SIZE` that stays free on the disk")
	f.BoolVar(&c.Discreet, "discreet", false, "tell nobody what was read here")
	f.BoolVar(&c.KeepFor, "keep-for-contacts", false, "be a mailbox for contacts, too")
	f.ListVar(&c.Mailboxes, "mailbox", "the `LINK` of a contact who keeps our mail (messenger id, there), repeatable, 4 at most")
	_, err := f.Parse(0, 0)
	if err == nil {
		err = f.Overlay(openSections, messengerName, &c)
	}
	var conf messenger.Config
	if err == nil {
		conf, err = c.engine(f)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error { return runMessenger(ctx, f, c, conf) })
}

// openMessengerStore opens what the messenger keeps: values, and the secrets that are erased.
func openMessengerStore(f *applet.Flags, c messengerConfig, conf *messenger.Config) (done func(), err error) {
	path := func(name string) string { return filepath.Join(f.State, messengerName+"."+name) }
	var kvKey [32]byte
	if c.RAM {
		path = func(string) string { return "" }
		if _, err := rand.Read(kvKey[:]); err != nil {
			return nil, err
		}
	} else {
		passphrase := ""
		if c.Passphrase != "" {
			b, err := readBounded(c.Passphrase, 4<<10)
			if err != nil {
				return nil, fmt.Errorf("passphrase: %w", err)
			}
			if passphrase, _, _ = strings.Cut(string(b), "\n"); passphrase == "" {
				return nil, fmt.Errorf("passphrase: the first line of %s is empty", c.Passphrase)
			}
		}
		if kvKey, err = store.KeyFile(path("key"), passphrase); err != nil {
			return nil, err
		}
	}
	kv, err := store.OpenKV(path("db"), store.KVOptions{Key: kvKey})
	if errors.Is(err, store.ErrLocked) {
		err = fmt.Errorf("%w; is another messenger running with this --state?", err)
	}
	if err != nil {
		return nil, err
	}
	if w := kv.Warning(); w != nil {
		conf.Log.Warn("messages were damaged", "err", w)
	}
	ring, err := prekeys.Open(path("prekeys"))
	if err != nil {
		return nil, errors.Join(err, kv.Close())
	}
	conf.Store, conf.Prekeys, conf.Salt = kv, ring, kvKey
	return func() { kv.Close() }, nil
}

func runMessenger(ctx context.Context, f *applet.Flags, c messengerConfig, conf messenger.Config) error {
	listener, err := messenger.Listen(f.Run)
	if err != nil {
		if errors.Is(err, signal.ErrInUse) {
			err = applet.WithCode(applet.Refused, fmt.Errorf("a messenger runs already in %s; to run a second one give it its own --run and --state", f.Run))
		}
		return err
	}
	defer listener.Close()
	if conf.Key, _, err = key.LoadOrCreate(filepath.Join(f.State, "node.key")); err != nil {
		return err
	}
	done, err := openMessengerStore(f, c, &conf)
	if err != nil {
		return err
	}
	defer done()
	d := &messengerDaemon{f: f, c: c, log: conf.Log, home: newMessengerHome(f, conf.Log), shelf: messenger.KVShelf(conf.Store)}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	run := func(what string, do func(context.Context) error) {
		wg.Go(func() {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	run("beside the node", d.home.Run)
	if conf.Account, err = d.account(ctx, conf.Key.Public()); err != nil {
		return causeOf(ctx, err)
	}
	conf.Mesh, conf.Statements = d.home, d.statements
	conf.Place = func() envelope.Place { return d.place() }
	if d.engine, err = messenger.New(conf); err != nil {
		if c.Account == "cluster" {
			err = fmt.Errorf("%w (the role is given with: manager invite --role messenger)", err)
		}
		return err
	}
	if err := d.assemble(conf); err != nil {
		return err
	}
	d.home.setChanged(d.renew)
	run("engine", d.engine.Run)
	run("calls", d.control.Run)
	run("hooks", d.hooks.Run)
	run("peering", d.peer)
	ready(f.Env())
	d.log.Info("messenger ready", "key", d.account0, "type", c.Account)
	err = d.server.Serve(ctx, listener)
	return causeOf(ctx, err)
}

// causeOf is the error of the part that ended first.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if ctx.Err() != nil && err == nil {
		return ctx.Err()
	}
	return err
}
