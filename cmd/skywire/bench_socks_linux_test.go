//go:build bench

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/meshtest/emulator"
)

// What `make bench-socks` measures with real programs: proxies on one box ("socks local"), and the way over an exit that is
// 50 ms away and back ("socks far"), each in turn and round after round; this program is client and target of all. Medians
// count, and of those the ratios. The link is the project's emulator, so that no kernel module is needed; it runs in this
// program too, and its time is in all figures alike.
//
//	SKYWIRE_BENCH_ROUNDS    how often each way is measured (3)
//	SKYWIRE_BENCH_OUT       folder for PART.md and PART.json (build/bench/results)

// socksWay is a proxy as programs use it, or none.
type socksWay struct {
	name  string
	proxy string            // host:port in the client's box; empty: the target itself
	procs map[string]string // box: regular part of the names of its processes
	ahead bool              // what comes before the reply is kept; dante and microsocks throw it away
	got   map[string][]float64
}

// socksBench is one part.
type socksBench struct {
	*bench
	client, exit string // boxes
	target       string
	ways         []*socksWay
	bulk, bulk32 int64 // bytes of a download over one connection, and over 32 together
	opens        int   // connections of the test for connections a second
	first        int   // requests of the test for the first byte
}

var socksMeasures = []measure{
	{"first byte", "ms from dialling the proxy to the answer's first byte, as curl asks", -1},
	{"ahead", "ms, the request sent with that to the proxy", -1},
	{"open", "connections/s, 32 at once, a byte there and back each", 1},
	{"down", "Mbit/s, 1 connection", 1},
	{"up", "Mbit/s, 1 connection", 1},
	{"down 32", "Mbit/s, 32 connections", 1},
	{"rss client", "MB at the client after all that", -1},
	{"rss exit", "MB at the exit after all that", -1},
	{"own client", "MB of that that no file backs: the rest is the binary, once for each process", -1},
	{"own exit", "MB", -1},
	{"rss conn", "kB a connection, 500 idle ones, both ends", -1},
}

var socksGoals = []goal{
	{"socks local", "open", "skywire direct", "microsocks", 0},
	{"socks local", "down", "skywire direct", "microsocks", 0},
	{"socks local", "down 32", "skywire direct", "microsocks", 0},
	{"socks local", "first byte", "skywire direct", "microsocks", 0},
	{"socks local", "open", "skywire direct", "dante", 0},
	{"socks local", "down", "skywire direct", "dante", 0},
	{"socks local", "down 32", "skywire direct", "dante", 0},
	{"socks local", "rss client", "skywire direct", "dante", 0},
	{"socks far", "first byte", "skywire", "ssh -D", -1},
	{"socks far", "first byte", "optimistic", "ssh -D", -0.7},
	{"socks far", "open", "skywire", "ssh -D", 1},
	{"socks far", "down", "skywire", "ssh -D", 1},
	{"socks far", "up", "skywire", "ssh -D", 1},
	{"socks far", "down 32", "skywire", "ssh -D", 1},
	{"socks far", "rss client", "skywire", "ssh -D", -1},
	{"socks far", "rss exit", "skywire", "ssh -D", -1},
	{"socks far", "own client", "skywire", "ssh -D", 0},
	{"socks far", "own exit", "skywire", "ssh -D", 0},
	{"socks far", "rss conn", "skywire", "ssh -D", -1},
	{"socks far", "first byte", "skywire", "microsocks, wg", 0},
	{"socks far", "down", "skywire", "microsocks, wg", 0},
	{"socks far", "down 32", "skywire", "microsocks, wg", 0},
	{"socks far", "open", "skywire", "microsocks, wg", 0},
}

// TestBenchSocks is both parts.
func TestBenchSocks(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		b := newSocksBench(t, "socks local")
		b.bulk, b.bulk32, b.opens, b.first = 512<<20, 512<<20, 3000, 200
		b.local()
		b.run()
	})
	t.Run("far", func(t *testing.T) {
		b := newSocksBench(t, "socks far")
		b.bulk, b.bulk32, b.opens, b.first = 48<<20, 96<<20, 600, 7
		b.far()
		b.run()
	})
}

func newSocksBench(t *testing.T, part string) *socksBench {
	return &socksBench{bench: &bench{world: newWorld(t, "bench"), part: part, rounds: setting("SKYWIRE_BENCH_ROUNDS", 3)}}
}

// local has everything in one box.
func (b *socksBench) local() {
	b.boxes("one")
	b.client, b.exit, b.target = "one", "one", "127.0.0.1:7000"
	b.measured("one", b.target)
	b.way("none", "", nil)
	b.node("one")
	b.start("one", "socks", "socks", "client", "--listen", "127.0.0.1:1081", "--rule", "any=direct")
	b.way("skywire direct", "127.0.0.1:1081", map[string]string{"one": "skywire"})
	b.other("microsocks", "one", "127.0.0.1:1082", "microsocks", "-i", "127.0.0.1", "-p", "1082")
	b.other("dante", "one", "127.0.0.1:1083", "danted", "-f", b.dante("one", "127.0.0.1", "1083", "lo"))
}

// far has the client's box and the exit's 50 ms from one another, there and back, and the target beside the exit.
func (b *socksBench) far() {
	b.boxes("client", "exit")
	b.plain("web")
	b.client, b.exit, b.target = "client", "exit", "10.60.1.2:7000"
	half := emulator.Profile{Delay: 25 * time.Millisecond, Queue: 64 << 20}
	_, err := b.lab.BadWire(b.end("client", "far", "10.60.0.1/24"), b.end("exit", "far", "10.60.0.2/24"), half, half, 1)
	b.must(err, b.lab.Wire(b.end("exit", "lan", "10.60.1.1/24"), b.end("web", "eth0", "10.60.1.2/24")))
	b.must(b.box["exit"].Forward(), b.box["web"].IP("route add 10.60.0.0/16 via 10.60.1.1"), b.box["client"].IP("route add 10.60.1.0/24 via 10.60.0.2"))
	b.measured("web", b.target)
	b.way("none", "", nil)
	b.node("exit")
	b.node("client", "--peer", b.peer("exit", "10.60.0.2"))
	b.reach("client", "exit")
	b.start("exit", "socks", "socks", "server", "--allow", b.key["client"], "--policy", "allow 10.60.1.0/24")
	ours := map[string]string{"client": "skywire", "exit": "skywire"}
	b.start("client", "socks", "socks", "client", "--listen", "127.0.0.1:1081", "--server", b.key["exit"])
	b.way("skywire", "127.0.0.1:1081", ours)
	b.start("client", "eager", "socks", "client", "--listen", "127.0.0.1:1084", "--server", b.key["exit"], "--optimistic")
	b.way("optimistic", "127.0.0.1:1084", nil) // a second client of the same nodes
	b.ssh()
	b.overWireguard()
}

// other starts a proxy of others in a box, if it is installed.
func (b *socksBench) other(name, box, addr, program string, args ...string) {
	b.t.Helper()
	if gone := b.missing(program); len(gone) > 0 {
		b.t.Logf("%s left out: %v is missing (.ci/tools bench installs it)", name, gone)
		return
	}
	_, err := b.box[box].Start(name, program, args...)
	b.must(err)
	b.way(name, addr, map[string]string{box: program})
}

// dante writes a configuration that lets everything through.
func (b *socksBench) dante(box, host, port, device string) string {
	b.t.Helper()
	path := filepath.Join(b.box[box].Dir, "danted.conf")
	b.must(os.WriteFile(path, fmt.Appendf(nil, `logoutput: /dev/null
internal: %s port = %s
external: %s
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 }
`, host, port, device), 0o644))
	return path
}

// ssh makes keys and runs sshd at the exit and ssh -D at the client.
func (b *socksBench) ssh() {
	b.t.Helper()
	if gone := b.missing("ssh", "/usr/sbin/sshd", "ssh-keygen"); len(gone) > 0 {
		b.t.Logf("ssh -D left out: %v is missing", gone)
		return
	}
	dir := b.box["exit"].Dir
	b.must(os.MkdirAll("/run/sshd", 0o755))
	for _, k := range []string{"host", "user"} {
		b.exec("exit", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, k))
	}
	pub, err := os.ReadFile(filepath.Join(dir, "user.pub"))
	b.must(err, os.WriteFile(filepath.Join(dir, "authorized"), pub, 0o600))
	_, err = b.box["exit"].Start("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "2222", "-h", filepath.Join(dir, "host"),
		"-o", "PidFile=none", "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PermitRootLogin=yes",
		"-o", "AuthorizedKeysFile="+filepath.Join(dir, "authorized"))
	b.must(err)
	b.wait("sshd", func(ctx context.Context) error { return b.listens(ctx, "exit", "2222") })
	_, err = b.box["client"].Start("ssh", "ssh", "-N", "-D", "127.0.0.1:1082", "-p", "2222", "-i", filepath.Join(dir, "user"),
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "root@10.60.0.2")
	b.must(err)
	b.way("ssh -D", "127.0.0.1:1082", map[string]string{"client": "ssh", "exit": "sshd"})
}

// overWireguard has microsocks at the exit, reached through wireguard-go.
func (b *socksBench) overWireguard() {
	if gone := b.missing("microsocks"); len(gone) > 0 {
		b.t.Logf("microsocks left out: it is missing (.ci/tools bench installs it)")
		return
	}
	b.wireguard("wg", "wg0", "10.61.0", hop{box: "client", next: "10.60.0.2"}, hop{box: "exit", prev: "10.60.0.1"})
	b.wait("wireguard", func(ctx context.Context) error {
		_, err := b.box["client"].Exec(ctx, "ping", "-c1", "-W1", "10.61.0.2")
		return err
	})
	_, err := b.box["exit"].Start("microsocks", "microsocks", "-i", "10.61.0.2", "-p", "1083")
	b.must(err)
	b.way("microsocks, wg", "10.61.0.2:1083", map[string]string{"client": "bench", "exit": "bench microsocks"})
}

// way adds a proxy and waits until it serves.
func (b *socksBench) way(name, proxy string, procs map[string]string) {
	b.t.Helper()
	y := &socksWay{name: name, proxy: proxy, procs: procs, ahead: strings.HasPrefix(name, "s") || name == "optimistic", got: map[string][]float64{}}
	b.wait(name, func(context.Context) error {
		_, err := b.firstByte(y, false)
		return err
	})
	b.ways = append(b.ways, y)
}

func (b *socksBench) listens(ctx context.Context, box, port string) error {
	_, err := b.box[box].Shell(ctx, "ss -Htln sport = :"+port+" | grep -q .")
	return err
}

// What the target does with a connection, by its first byte; eight bytes of a size follow all but askPing.
const (
	askPing = 'p' // answers a byte, as often as asked
	askDown = 'd' // sends size bytes
	askUp   = 'u' // reads size bytes and answers one
)

// measured is the target: it does as little as it can.
func (b *socksBench) measured(box, addr string) {
	l := b.listen(box, addr)
	var wg sync.WaitGroup
	b.t.Cleanup(wg.Wait)
	b.t.Cleanup(func() { _ = l.Close() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); answerMeasured(c) })
		}
	})
}

func answerMeasured(c net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		if _, err := io.ReadFull(c, buf[:1]); err != nil {
			return
		}
		if buf[0] == askPing {
			if _, err := c.Write(buf[:1]); err != nil {
				return
			}
			continue
		}
		ask := buf[0]
		if _, err := io.ReadFull(c, buf[:8]); err != nil {
			return
		}
		left := int64(binary.BigEndian.Uint64(buf))
		for left > 0 {
			n, err := int(min(left, int64(len(buf)))), error(nil)
			if ask == askDown {
				n, err = c.Write(buf[:n])
			} else {
				n, err = c.Read(buf[:n])
			}
			if err != nil {
				return
			}
			left -= int64(n)
		}
		if ask == askUp {
			_, _ = c.Write(buf[:1])
		}
	}
}

// dialWay opens a connection through a way and sends ask; ahead: in one piece with the request to the proxy.
func (b *socksBench) dialWay(y *socksWay, ask []byte, ahead bool) (c net.Conn, err error) {
	err = b.box[b.client].Enter(func() (err error) {
		c, err = b.dialHere(y, ask, ahead)
		return err
	})
	return c, err
}

// dialHere is dialWay for who is in the client's box already: to enter it costs a thread.
func (b *socksBench) dialHere(y *socksWay, ask []byte, ahead bool) (net.Conn, error) {
	to := y.proxy
	if to == "" {
		to = b.target
	}
	c, err := net.DialTimeout("tcp", to, 20*time.Second)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	if y.proxy != "" {
		err = b.negotiate(c, &ask, ahead)
	}
	if err == nil {
		_, err = c.Write(ask)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", y.name, err)
	}
	return c, nil
}

// negotiate speaks SOCKS5 as curl does: greeting, method, request, reply, each after the other.
func (b *socksBench) negotiate(c net.Conn, ask *[]byte, ahead bool) error {
	var in [10]byte
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, in[:2]); err != nil {
		return fmt.Errorf("method: %w", err)
	}
	host, port, _ := net.SplitHostPort(b.target)
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	q := append([]byte{5, 1, 0, 1}, net.ParseIP(host).To4()...)
	q = binary.BigEndian.AppendUint16(q, uint16(n))
	if ahead {
		q, *ask = append(q, *ask...), nil
	}
	if _, err := c.Write(q); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, in[:]); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	if in[1] != 0 {
		return fmt.Errorf("%w: %d", errRefused, in[1])
	}
	return nil
}

// firstByte is how long a small request takes.
func (b *socksBench) firstByte(y *socksWay, ahead bool) (took time.Duration, err error) {
	err = b.box[b.client].Enter(func() error {
		took, err = b.firstByteHere(y, ahead)
		return err
	})
	return took, err
}

func (b *socksBench) firstByteHere(y *socksWay, ahead bool) (time.Duration, error) {
	start := time.Now()
	c, err := b.dialHere(y, []byte{askPing}, ahead)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_, err = io.ReadFull(c, make([]byte, 1))
	return time.Since(start), err
}

// run measures all ways in turn, and at the end what they take of memory.
func (b *socksBench) run() {
	b.t.Helper()
	for range b.rounds {
		for _, y := range b.ways {
			b.measureFirst(y)
			b.measureOpen(y)
			y.add("down", b.move(y, askDown, 1, b.bulk))
			y.add("up", b.move(y, askUp, 1, b.bulk))
			y.add("down 32", b.move(y, askDown, 32, b.bulk32))
		}
	}
	for _, y := range b.ways {
		b.measureMemory(y)
	}
	b.reportSocks()
}

func (y *socksWay) add(measure string, v float64) { y.got[measure] = append(y.got[measure], v) }

func (b *socksBench) measureFirst(y *socksWay) {
	b.t.Helper()
	for _, ahead := range []bool{false, true} {
		if ahead && !y.ahead {
			continue
		}
		var all []float64
		for range b.first {
			d, err := b.firstByte(y, ahead)
			b.must(err)
			all = append(all, float64(d.Microseconds())/1000)
		}
		slices.Sort(all)
		y.add(map[bool]string{false: "first byte", true: "ahead"}[ahead], all[len(all)/2])
	}
}

// measureOpen opens connections as fast as 32 programs can.
func (b *socksBench) measureOpen(y *socksWay) {
	b.t.Helper()
	const programs = 32
	errs := make([]error, programs)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range programs {
		wg.Go(func() {
			errs[i] = b.box[b.client].Enter(func() error {
				for range b.opens / programs {
					if _, err := b.firstByteHere(y, false); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	wg.Wait()
	b.must(errs...)
	y.add("open", float64(b.opens/programs*programs)/time.Since(start).Seconds())
}

// move carries size bytes over n connections and returns Mbit/s, dialling not counted.
func (b *socksBench) move(y *socksWay, ask byte, n int, size int64) float64 {
	b.t.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := b.dialWay(y, []byte{askPing}, false)
		b.must(err)
		defer c.Close()
		_, err = io.ReadFull(c, make([]byte, 1))
		b.must(err)
		conns[i] = c
	}
	errs := make([]error, n)
	each := size / int64(n)
	start := time.Now()
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { errs[i] = carry(c, ask, each) })
	}
	wg.Wait()
	took := time.Since(start)
	b.must(errs...)
	return float64(each*int64(n)*8) / took.Seconds() / 1e6
}

func carry(c net.Conn, ask byte, size int64) error {
	if _, err := c.Write(binary.BigEndian.AppendUint64([]byte{ask}, uint64(size))); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for left := size; left > 0; {
		n, err := int(min(left, int64(len(buf)))), error(nil)
		if ask == askDown {
			n, err = c.Read(buf[:n])
		} else {
			n, err = c.Write(buf[:n])
		}
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	if ask == askUp {
		_, err := io.ReadFull(c, buf[:1])
		return err
	}
	return nil
}

// measureMemory takes the resident memory of the programs of both ends, idle and with connections.
func (b *socksBench) measureMemory(y *socksWay) {
	b.t.Helper()
	if y.procs == nil {
		return
	}
	all, own := b.resident(y, b.client)
	y.add("rss client", all/1e6)
	y.add("own client", own/1e6)
	if b.exit != b.client {
		rss, own := b.resident(y, b.exit)
		y.add("rss exit", rss/1e6)
		y.add("own exit", own/1e6)
		all += rss
	}
	const idle, programs = 500, 25
	var mu sync.Mutex // guards conns and failed
	var conns []net.Conn
	var failed error
	var wg sync.WaitGroup
	for range programs {
		wg.Go(func() {
			for range idle / programs {
				c, err := b.dialWay(y, []byte{askPing}, false)
				if err == nil {
					_, err = io.ReadFull(c, make([]byte, 1))
				}
				mu.Lock()
				if err != nil {
					failed = err
				} else {
					conns = append(conns, c)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != nil {
		b.t.Logf("%s holds %d idle connections, then: %v", y.name, len(conns), failed)
	}
	after, _ := b.resident(y, b.client)
	if b.exit != b.client {
		rss, _ := b.resident(y, b.exit)
		after += rss
	}
	if len(conns) == idle {
		y.add("rss conn", (after-all)/1e3/idle)
	}
	for _, c := range conns {
		c.Close()
	}
}

// resident adds up the memory of a way's programs in a box, children too, and the part of it that no file backs.
func (b *socksBench) resident(y *socksWay, box string) (rss, own float64) {
	b.t.Helper()
	var ns unix.Stat_t
	b.must(unix.Stat("/run/netns/"+b.box[box].NS, &ns))
	dirs, err := filepath.Glob("/proc/[0-9]*")
	b.must(err)
	for _, d := range dirs {
		var net unix.Stat_t
		if unix.Stat(d+"/ns/net", &net) != nil || net.Ino != ns.Ino {
			continue
		}
		comm, err := os.ReadFile(d + "/comm")
		if err != nil || !slices.Contains(strings.Fields(y.procs[box]), strings.TrimSpace(string(comm))) {
			continue
		}
		if words, err := os.ReadFile(d + "/cmdline"); err != nil || strings.Contains(string(words), "--optimistic") {
			continue
		}
		status, err := os.ReadFile(d + "/status")
		if err != nil {
			continue
		}
		rss, own = rss+kilobytes(string(status), "VmRSS:"), own+kilobytes(string(status), "RssAnon:")
	}
	if rss == 0 {
		b.must(errors.New(y.name + " has no program in " + box))
	}
	return rss, own
}

// kilobytes reads a line of /proc/PID/status, in bytes.
func kilobytes(status, name string) float64 {
	_, rest, _ := strings.Cut(status, name)
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseFloat(f[0], 64)
	return n * 1024
}

// reportSocks writes PART.json and PART.md.
func (b *socksBench) reportSocks() {
	b.t.Helper()
	r := result{Part: b.part, scene: sceneNow(b.rounds, 0), Units: map[string]string{}, Ways: map[string]map[string][]float64{}}
	for _, m := range socksMeasures {
		r.Units[m.name] = m.unit
	}
	for _, y := range b.ways {
		r.Ways[y.name] = y.got
	}
	for _, g := range socksGoals {
		if g.part == b.part {
			r.Ratios = append(r.Ratios, g.ratios(r.Ways)...)
		}
	}
	b.keep(b.part, b.socksMarkdown(r), r)
}

func (b *socksBench) socksMarkdown(r result) string {
	var s strings.Builder
	fmt.Fprintf(&s, "### %s\n\n%s, %d × %s, Linux %s, %d rounds, load at the end %s. Median [least–most].\n\n",
		r.Part, r.Time.Format("2006-01-02 15:04"), r.CPUs, r.CPU, r.Kernel, r.Rounds, r.Load)
	row := func(cells ...string) { fmt.Fprintf(&s, "| %s |\n", strings.Join(cells, " | ")) }
	head, rule := []string{""}, []string{"---"}
	for _, y := range b.ways {
		head, rule = append(head, y.name), append(rule, "---")
	}
	row(append(head, "unit")...)
	row(append(rule, "---")...)
	for _, m := range socksMeasures {
		cells, some := []string{m.name}, false
		for _, y := range b.ways {
			cells, some = append(cells, spread(y.got[m.name])), some || len(y.got[m.name]) > 0
		}
		if some {
			row(append(cells, m.unit)...)
		}
	}
	s.WriteString("\n| ratio | of | to | measured | wanted |\n| --- | --- | --- | --- | --- |\n")
	for _, q := range r.Ratios {
		row(q.Measure, q.Way, q.Other, spread(q.Rounds), q.verdict())
	}
	s.WriteString("\n")
	return s.String()
}
