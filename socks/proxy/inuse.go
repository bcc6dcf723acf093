package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// explainListen turns the error of a listen into what to do about it.
func explainListen(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		who := "another program"
		if _, p, e := net.SplitHostPort(addr); e == nil {
			if port, e := strconv.ParseUint(p, 10, 16); e == nil {
				if o := portOwner(uint16(port)); o != "" {
					who = o
				}
			}
		}
		return fmt.Errorf("listen on %s: %w by %s; stop it, or choose another port with --listen", addr, ErrInUse, who)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: %w; ports below 1024 need CAP_NET_BIND_SERVICE, choose a higher one with --listen", addr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: %w; this box does not have that address", addr, err)
	}
	return fmt.Errorf("listen on %s: %w", addr, err)
}

// portOwner names the process that listens on a TCP port, as far as /proc tells it to this user: "NAME (pid N)". Where
// there is no /proc it is empty.
func portOwner(port uint16) string {
	inodes := make(map[string]bool)
	for _, f := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, i := range listeners(string(b), port) {
			inodes["socket:["+i+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err != nil || !inodes[to] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "pid " + pid
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}

// listeners returns the inodes of the sockets that listen on port, from the text of /proc/net/tcp:
//
//	sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode …
func listeners(table string, port uint16) []string {
	var inodes []string
	for _, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "0A" { // 0A: TCP_LISTEN
			continue
		}
		_, p, ok := strings.Cut(f[1], ":")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(p, 16, 16); err == nil && uint16(n) == port {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}
