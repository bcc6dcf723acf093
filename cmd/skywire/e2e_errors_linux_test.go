package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refuses starts a program in a box and wants it to end by itself with a status other than 0, and to say all of words.
func (w *world) refuses(box string, words []string, program string, args ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	out, err := w.box[box].Exec(ctx, program, args...)
	switch {
	case ctx.Err() != nil:
		w.t.Errorf("%s %v goes on", filepath.Base(program), args)
	case err == nil:
		w.t.Errorf("%s %v succeeds: %s", filepath.Base(program), args, out)
	default:
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				w.t.Errorf("%s %v: does not say %q: %v", filepath.Base(program), args, word, err)
			}
		}
	}
}

// TestE2EErrors: what commonly goes wrong has a text that names the cause and the remedy.
func TestE2EErrors(t *testing.T) {
	w := newWorld(t, "errors")
	w.boxes("a", "b", "c")
	w.must(w.lab.Wire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24")))
	path, err := builtBinary()
	w.must(err)
	w.node("a")

	// Without a node.
	w.refuses("b", []string{"exit status 3", "node run"}, path, "node", "status")
	w.refuses("b", []string{"exit status 3", "node run"}, path, "socks", "status")
	w.refuses("b", []string{"exit status 3", "node run"}, path, "manager", "nodes")

	// Keys that are none, and one that is another's.
	w.refuses("b", []string{"exit status 2"}, path, "node", "run", "--peer", "nonsense@udp://10.1.0.1:"+meshPort)
	p := w.start("b", "node", "node", "run", "--listen", "udp://[::]:"+meshPort, "--open", "--peer", w.key["c"]+"@udp://10.1.0.1:"+meshPort)
	w.wait("the word on a wrong key", func(ctx context.Context) error {
		out, err := w.box["b"].Skywire(ctx, "node", "peers")
		if err = w.alive(p, err); err != nil {
			return err
		}
		if text := strings.ToLower(out + p.Output()); !strings.Contains(text, "key") || !strings.Contains(text, "10.1.0.1") {
			return fmt.Errorf("peers says %q, the log %q", out, p.Tail(5))
		}
		return nil
	})
	w.must(p.Stop(patience))

	// A second node of the same folders, and of the same port.
	w.refuses("a", []string{"running already", "--state"}, path, "node", "run", "--listen", "udp://0.0.0.0:5555", "--open")
	w.refuses("a", []string{"in use", meshPort}, path, "node", "run", "--listen", "udp://[::]:"+meshPort, "--open",
		"--state", w.box["a"].Dir+"/state2", "--run", w.box["a"].Dir+"/run2")

	// A wrong key in the config, with its line and what was meant.
	w.must(w.box["b"].WriteConfig("node:\n  lisen: [\"udp://0.0.0.0:4443\"]\n"))
	w.refuses("b", []string{"line 2", "lisen", "did you mean", "listen"}, path, "node", "run")
	w.must(os.Remove(w.box["b"].Config()))

	// A device that is not there, rights that are missing, a disk that is full.
	w.refuses("a", []string{"/dev/net/tun"}, "unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev && exec "+path+" vpn up")
	w.must(os.Chmod(w.lab.Dir(), 0o755), os.Chmod(w.box["a"].Dir, 0o755), os.Chmod(w.box["a"].Run(), 0o755))
	w.refuses("a", []string{"root"}, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", path, "vpn", "up")
	w.checkFullDisk(path)
}

// checkFullDisk: a node whose state folder is full either says so and ends, or says so and goes on without.
func (w *world) checkFullDisk(path string) {
	w.t.Helper()
	// A disk too small for the database, but with room for the key; and one with no room at all.
	for _, size := range []string{"size=12k", "nr_inodes=1"} {
		line := fmt.Sprintf("mkdir -p full && mount -t tmpfs -o %s none full && exec %s node run --state full --listen udp://0.0.0.0:5556 --open", size, path)
		p, err := w.box["c"].Start("full", "unshare", "-m", "sh", "-c", line)
		w.must(err)
		w.wait("the word on a full disk ("+size+")", func(context.Context) error {
			text := strings.ToLower(p.Output())
			if strings.Contains(text, "no space") || strings.Contains(text, "full") && strings.Contains(text, "state") {
				return nil
			}
			select {
			case <-p.Done():
				w.t.Fatalf("full disk (%s): ended with %d: %s", size, p.ExitCode(), p.Output())
			default:
			}
			return errors.New(p.Tail(3))
		})
		p.Kill()
		w.must(os.Truncate(p.Log, 0))
	}
}
