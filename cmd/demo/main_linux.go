package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"skywire/cmd/internal/lab"
)

func main() {
	done, code, err := lab.Reexec()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	case done:
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout))
}

func run(ctx context.Context, args []string, out io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	binary := flags.String("binary", "build/skywire", "the skywire `FILE` to show")
	check := flags.Bool("check", false, "no shell at the end; exit status 1 when a claim fails")
	verbose := flags.Bool("v", false, "print the daemons' logs when a claim fails")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	path, err := filepath.Abs(*binary)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: no binary, run make build first:", err)
		return 1
	}
	d := &demo{binary: path, out: out, began: time.Now(), verbose: *verbose || *check}
	if d.lab, err = lab.New(lab.Config{Name: "demo", Binary: path, Log: d.step}); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	defer func() {
		d.step("taking everything down")
		if err := d.lab.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
	}()
	err = d.build(ctx)
	if err == nil {
		err = d.prove(ctx)
	}
	d.summary()
	if ctx.Err() == nil && d.complain(err) {
		d.logs()
	}
	if ctx.Err() != nil {
		return 1
	}
	if !*check && err == nil {
		err = d.shell(ctx)
		d.complain(err)
	}
	if err != nil || d.failed() {
		return 1
	}
	return 0
}

// complain prints err, if it is one.
func (d *demo) complain(err error) bool {
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	return err != nil
}
