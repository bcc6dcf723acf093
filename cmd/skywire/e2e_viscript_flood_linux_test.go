package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	floodRing = 256 << 10
	floodRate = 50 << 20 // bytes a second
)

// TestFloodApp is no test but the app of the next one: it writes lines of 100 bytes as fast as floodRate says, or as it may.
func TestFloodApp(t *testing.T) {
	if os.Getenv("SKYWIRE_TEST_FLOOD") == "" {
		return
	}
	line := strings.Repeat("x", 80)
	var b []byte
	n, begin := 0, time.Now()
	for {
		due := int(time.Since(begin).Seconds() * floodRate)
		for b = b[:0]; len(b) < 256<<10 && n < due; n += 100 {
			b = fmt.Appendf(b, "%018d %s\n", n, line)
		}
		if len(b) == 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		if _, err := os.Stdout.Write(b); err != nil {
			return
		}
	}
}

// TestE2EViscriptFlood is T-S10: an app that writes 50 MB of lines a second costs viscript no more memory than the ring and
// 8 MB, and the disk nothing; who follows is told how many lines were held back, and others are served.
func TestE2EViscriptFlood(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := newLive(t, fmt.Sprintf(`apps:
  flood: {path: %q, default_args: ["-test.run=^TestFloodApp$"], env: {SKYWIRE_TEST_FLOOD: "1"}, log_bytes: %d, restart: never, daemon: true}
  quiet: {path: /bin/sleep, default_args: [1000], autostart: true}
`, self, floodRing))
	v.start()
	v.running("quiet")
	v.verb("start", "quiet", "1000") // all of viscript that will be used was used
	rss := v.status("VmRSS:") << 10
	disk, files := v.written(), v.files("state")
	v.verb("start", "flood")
	begin := time.Now()
	follower := v.follow("flood")
	length := 4 * time.Second
	if full() {
		length = 30 * time.Second
	}
	most, held := 0, int64(0)
	for time.Since(begin) < length {
		most = max(most, v.status("VmRSS:")<<10)
		held = max(held, v.blocks())
		time.Sleep(100 * time.Millisecond)
	}
	var ru struct {
		Write float64 `json:"io_write_bytes"`
	}
	if err := v.ask(t.Context(), &ru, "ru", "flood"); err != nil {
		t.Fatal(err)
	}
	rate := ru.Write / time.Since(begin).Seconds()
	v.verb("ping", "quiet#1")
	grown := most - rss
	t.Logf("%.1f MB/s; RSS %.1f MB, %.1f more than before; run directory at most %.0f kB", rate/1e6, float64(most)/1e6, float64(grown)/1e6, float64(held)/1e3)
	if grown > floodRing+8<<20 {
		t.Errorf("RSS has grown by %d", grown)
	}
	if held > 4<<20 {
		t.Errorf("the run directory takes %d bytes", held)
	}
	if n := v.written(); n != disk {
		t.Errorf("%d bytes to disks", n-disk)
	}
	v.verb("stop", "flood")
	if text := v.files("state"); text != files {
		t.Errorf("state directory: %s, before: %s", text, files)
	}
	follower.saw(t)
}

// written is what viscript has had written to disks.
func (v *live) written() int {
	v.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", v.pid()))
	if err != nil {
		v.t.Skip("this kernel does not count: ", err)
	}
	_, rest, _ := strings.Cut(string(b), "\nwrite_bytes: ")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		v.t.Fatal(err)
	}
	return n
}

// files are those of a directory with size and time.
func (v *live) files(dir string) (text string) {
	filepath.WalkDir(filepath.Join(v.dir, dir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if in, err := d.Info(); err == nil {
				text += fmt.Sprintf("%s %d %v; ", d.Name(), in.Size(), in.ModTime())
			}
		}
		return nil
	})
	return text
}

// blocks is what the run directory takes of memory, holes left out.
func (v *live) blocks() (n int64) {
	filepath.WalkDir(v.run(), func(path string, d fs.DirEntry, err error) error {
		if in, ierr := os.Lstat(path); err == nil && ierr == nil {
			if st, ok := in.Sys().(*syscall.Stat_t); ok {
				n += st.Blocks * 512
			}
		}
		return nil
	})
	return n
}

// follower is a person who reads logs -f.
type follower struct {
	end func()

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func (f *follower) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes.Contains(b, []byte("suppressed")) || f.out.Len() < 10000 {
		f.out.Write(b)
	}
	return len(b), nil
}

func (v *live) follow(app string) *follower {
	v.t.Helper()
	f := &follower{}
	ctx, cancel := context.WithCancel(context.Background())
	c := v.command(ctx, v.words("logs", "-f", app)...)
	c.Stdout = f
	if err := c.Start(); err != nil {
		v.t.Fatal(err)
	}
	f.end = func() {
		cancel()
		c.Wait()
	}
	v.t.Cleanup(f.end)
	v.wait("the follower sees lines", func(context.Context) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.out.Len() == 0 {
			return errors.New("none")
		}
		return nil
	})
	return f
}

// saw wants to have been told more than once of lines that were held back.
func (f *follower) saw(t *testing.T) {
	t.Helper()
	f.end()
	all := regexp.MustCompile(`(\d+) lines suppressed`).FindAllStringSubmatch(f.out.String(), -1)
	sum := 0
	for _, m := range all {
		n, _ := strconv.Atoi(m[1])
		sum += n
	}
	t.Logf("told %d times, of %d lines", len(all), sum)
	if len(all) < 2 || sum < 10000 {
		t.Errorf("the follower was told %d times of %d lines", len(all), sum)
	}
}
