package supervisor

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"skywire/signal/hub"
	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

func code(n int) proc.Exit { return proc.Exit{Code: &n} }

func TestPolicy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		restart config.Restart
		exit    proc.Exit
		want    State
	}{
		{"never, status 0", config.Never, code(0), Exited},
		{"never, status 1", config.Never, code(1), Failed},
		{"never, signal", config.Never, proc.Exit{Signal: "KILL"}, Failed},
		{"on-failure, status 0", config.OnFailure, code(0), Exited},
		{"on-failure, status 1", config.OnFailure, code(1), Backoff},
		{"on-failure, wrong usage", config.OnFailure, code(2), Failed},
		{"always, wrong usage", config.Always, code(2), Backoff},
		{"on-failure, signal", config.OnFailure, proc.Exit{Signal: "SEGV"}, Backoff},
		{"on-failure, unknown", config.OnFailure, proc.Exit{Unknown: true}, Backoff},
		{"always, status 0", config.Always, code(0), Backoff},
	}
	for _, tt := range tests {
		p := policy{restart: tt.restart, delay: time.Second, maxDelay: time.Minute}
		if got, _ := p.next(tt.exit, time.Second); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	p := policy{restart: config.Always, delay: time.Second, maxDelay: time.Minute}
	for i, want := range []time.Duration{0, 2 * time.Second, 4 * time.Second} { // the first after it has worked is at once
		if _, d := p.next(code(1), time.Second); d != want {
			t.Errorf("restart %d after %v, want %v", i+1, d, want)
		}
	}
	p = policy{restart: config.Always, delay: time.Second, maxDelay: time.Minute}
	for range 10000 { // no overflow
		if _, d := p.next(code(1), 0); d < time.Second || d > time.Minute {
			t.Fatalf("delay %v", d)
		}
	}
}

// fake is an app that runs for a while and ends with status 1.
type fake struct {
	lasts time.Duration
	stop  chan struct{}
	once  sync.Once
}

func (f *fake) ID() proc.ID { return proc.ID{PID: 1} }
func (f *fake) Wait(context.Context) proc.Exit {
	t := time.NewTimer(f.lasts)
	defer t.Stop()
	select {
	case <-t.C:
		return code(1)
	case <-f.stop:
		return proc.Exit{Signal: "TERM"}
	}
}

func (f *fake) Stop(time.Duration, bool) error {
	f.once.Do(func() { close(f.stop) })
	return nil
}
func (f *fake) Usage() (proc.Usage, bool)   { return proc.Usage{}, false }
func (f *fake) Has(int) bool                { return false }
func (f *fake) Input() io.WriteCloser       { return nil }
func (f *fake) Signal(syscall.Signal) error { return nil }
func (f *fake) Release()                    {}

// bubble runs the loop alone, without sockets, over launches that the test sees.
func bubble(t *testing.T, yaml string, launch launcher) *Supervisor {
	t.Helper()
	file, err := config.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{StateDir: t.TempDir(), RunDir: t.TempDir(), Dir: "/", File: "/nowhere/config.yaml", launch: launch})
	if err != nil {
		t.Fatal(err)
	}
	s.file, s.hub = file, hub.New(hub.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	inner, end := context.WithCancel(context.Background())
	s.ctx = inner
	var wg sync.WaitGroup
	wg.Go(func() {
		s.autostart()
		s.loop(ctx)
		end()
		close(s.ended)
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		s.wg.Wait()
	})
	return s
}

func stateOf(t *testing.T, s *Supervisor, id uint64) Item {
	t.Helper()
	list, err := s.items(t.Context(), func(e *entry) bool { return e.id == id })
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	return list[0]
}

func TestBackoffSeries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Duration
		begin := time.Now()
		var lasts atomic.Int64
		s := bubble(t, "apps:\n  a: {path: x, restart: always, restart_delay: 1, restart_max_delay: 10}\n", func(launch) (running, error) {
			starts = append(starts, time.Since(begin))
			return &fake{lasts: time.Duration(lasts.Load()), stop: make(chan struct{})}, nil
		})
		if _, err := s.Start(t.Context(), "a", nil, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(36 * time.Second)
		synctest.Wait()
		want := []time.Duration{0, 1, 3, 7, 15, 25, 35}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(starts, want) {
			t.Errorf("started at %v, want %v", starts, want)
		}
		if it := stateOf(t, s, 1); it.State != Backoff || it.Restarts != 6 || it.ExitCode == nil || *it.ExitCode != 1 {
			t.Errorf("%+v", it)
		}
		lasts.Store(int64(11 * time.Second)) // a good run
		time.Sleep(22 * time.Second)
		synctest.Wait()
		if n := len(starts); starts[n-1]-starts[n-2] != 11*time.Second {
			t.Errorf("after a good run it is not started again at once: %v", starts)
		}
		if it, err := s.Stop(t.Context(), "a", 0); err != nil || it.State != Exited {
			t.Errorf("stop: %+v, %v", it, err)
		}
		n := len(starts)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(starts) != n {
			t.Error("started again after stop")
		}
	})
}

func TestRestartLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := bubble(t, "apps:\n  a: {path: x, autostart: true, restart_limit: 3}\n", func(launch) (running, error) {
			n++
			return &fake{stop: make(chan struct{})}, nil
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		it := stateOf(t, s, 1)
		if n != 4 || it.State != Failed || it.ExitReason == nil || *it.ExitReason != "exit status 1; given up after 3 restarts" {
			t.Errorf("%d starts, %+v", n, it)
		}
	})
}

// TestMissingProgram: what is started automatically is tried again when its program was not there.
func TestMissingProgram(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var there atomic.Bool
		s := bubble(t, "apps:\n  a: {path: x, autostart: true}\n", func(launch) (running, error) {
			if !there.Load() {
				return nil, errors.New("no such file")
			}
			return &fake{lasts: time.Hour, stop: make(chan struct{})}, nil
		})
		time.Sleep(10 * time.Second)
		if it := stateOf(t, s, 1); it.State != Backoff {
			t.Errorf("%+v", it)
		}
		there.Store(true)
		time.Sleep(time.Minute)
		if it := stateOf(t, s, 1); it.State != Running {
			t.Errorf("%+v", it)
		}
		if _, err := s.Stop(t.Context(), "a#1", 0); err != nil {
			t.Error(err)
		}
	})
}

func TestStopInBackoffAndRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := bubble(t, "apps:\n  a: {path: x, restart: always, restart_delay: 100, restart_max_delay: 100}\n", func(launch) (running, error) {
			n++
			return &fake{stop: make(chan struct{})}, nil
		})
		s.Start(t.Context(), "a", nil, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if it, err := s.Restart(t.Context(), "a"); err != nil || n != 2 || it.ID != 1 {
			t.Errorf("restart: %+v, %v, %d starts", it, err, n)
		}
		time.Sleep(time.Second)
		if it, err := s.Stop(t.Context(), "1", 0); err != nil || it.State != Exited {
			t.Errorf("stop: %+v, %v", it, err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n != 2 {
			t.Errorf("%d starts", n)
		}
		if it, err := s.Restart(t.Context(), "1"); err != nil || n != 3 || it.ID != 1 {
			t.Errorf("restart of the ended: %+v, %v", it, err)
		}
	})
}
