package applets

import (
	"context"
	"os"
	"strconv"
	"sync"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/node"
	"skywire/signal"
	"skywire/signal/auto"
)

// ready tells who started the applet that it serves now: viscript by signal, a service manager in the words of sd_notify(3).
// A deaf one finds out by itself.
func ready(e *applet.Env) {
	auto.Ready()
	_ = signal.Notify(e.Getenv("NOTIFY_SOCKET"), "READY=1")
}

// watched gives a service manager that waits for them (WatchdogSec of systemd) its signs of life until ctx ends, each after
// look, which asks what would hang, has returned without an error.
func watched(ctx context.Context, e *applet.Env, look func(context.Context) error) {
	every := watchEvery(e.Getenv("WATCHDOG_USEC"), e.Getenv("WATCHDOG_PID"))
	if every == 0 {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		ask, cancel := context.WithTimeout(ctx, every)
		err := look(ask)
		cancel()
		if err == nil {
			_ = signal.Notify(e.Getenv("NOTIFY_SOCKET"), "WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// watchEvery is half of what a service manager waits for, 0 if it does not wait for this process.
func watchEvery(usec, pid string) time.Duration {
	if pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, _ := strconv.ParseUint(usec, 10, 40)
	return time.Duration(n) * time.Microsecond / 2
}

// serveNode runs a node and tells who started it how it is.
func serveNode(ctx context.Context, f *applet.Flags, conf node.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	conf.Ready = func() {
		ready(f.Env())
		watch.Go(func() { watched(ctx, f.Env(), func(ctx context.Context) error { return nodeAnswers(ctx, f) }) })
	}
	return withRemedy(node.Run(ctx, conf))
}

// nodeAnswers asks the node as any app does: through its socket and its loop.
func nodeAnswers(ctx context.Context, f *applet.Flags) error {
	c, err := awaitNode(ctx, f, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(ctx, "node.id", nil, nil)
}
