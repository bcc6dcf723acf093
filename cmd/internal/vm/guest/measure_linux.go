package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// memory is what smaps_rollup says of a process, in kB. Shared counts for each that shares it in rss, by its part in pss.
func memory(pid int) (rss, pss, private int, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		field := strings.Fields(s.Text())
		if len(field) < 2 {
			continue
		}
		n, err := strconv.Atoi(field[1])
		if err != nil {
			continue
		}
		switch field[0] {
		case "Rss:":
			rss = n
		case "Pss:":
			pss = n
		case "Private_Dirty:":
			private = n
		}
	}
	return rss, pss, private, nil
}

// ready starts a program and returns once it has said READY=1, as a service manager would wait for it.
func ready(ctx context.Context, c *exec.Cmd, name string) (time.Duration, error) {
	path := filepath.Join("/run", name+".notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	c.Env = append(c.Env, "NOTIFY_SOCKET="+path)
	start := time.Now()
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	said, gone := make(chan time.Time, 1), make(chan error, 1)
	go func() { // both end with the program, at the latest with the machine
		gone <- c.Wait()
		_ = l.Close()
	}()
	go hear(l, said)
	select {
	case at := <-said:
		return at.Sub(start), nil
	case err := <-gone:
		return 0, fmt.Errorf("%s ended: %w", name, err)
	case <-ctx.Done():
		return 0, fmt.Errorf("%s does not say that it is ready: %w", name, ctx.Err())
	}
}

// hear reads what a program has to say for as long as it runs.
func hear(l *net.UnixConn, ready chan<- time.Time) {
	for b := make([]byte, 4096); ; {
		n, err := l.Read(b)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(b[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				select {
				case ready <- time.Now():
				default: // it was ready before
				}
			}
		}
	}
}
