// Command skywire is the whole system in one binary: it runs the applet that its name (argv[0]) or its first argument
// names. It does not hold any applet's code, which lies in cmd/internal/applets.
// This file alone touches what belongs to the process: signals, exit status, the runtime's settings, default loggers.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"skywire/cmd/internal/applet"
	"skywire/cmd/internal/applets"
)

func main() { os.Exit(run()) }

func run() int {
	if runtime.NumCPU() <= 2 {
		processors(1) // one loop, no thread hand-overs: DESIGN 5
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(20) // small boxes: memory before garbage collector time
	}
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") // streams do not use a kernel socket
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills
	defer profile()()
	return dispatch(ctx, os.Args[0], &applet.Env{
		Args: os.Args[1:], Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Processors: processors,
	}, applets.All(), applets.Tools())
}

// processors is applet.Env.Processors: as many as the node has loops.
func processors(n int) int {
	if n > 0 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(n)
	}
	return runtime.GOMAXPROCS(0)
}
