package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"skywire/cmd/internal/lab"
)

// What a small router has and what may happen on it.
const (
	smallMemory = 64 << 20
	mostGC      = 0.10 // of the CPU that a program uses
	// mostFlash is what the box may write an hour while all kinds of traffic run, links flap and peers restart without a
	// pause. It is 35 GB a year; a router's overlay of 8 MB whose blocks bear 100,000 erasures takes 800.
	mostFlash = 4 << 20
)

// TestE2ESmallBox runs a client's box (viscript, node, vpn, socks; as processes and in one) in 64 MB with one processor, the
// program's own text included, and its state on a flash of its own. SKYWIRE_SMALLBOX=10m is a day's traffic; see
// packaging/SIZE.md.
func TestE2ESmallBox(t *testing.T) {
	t.Parallel()
	length := 20 * time.Second
	if s := os.Getenv("SKYWIRE_SMALLBOX"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("SKYWIRE_SMALLBOX: %v", err)
		}
		length = d
	}
	for _, inproc := range []bool{true, false} {
		name := map[bool]string{true: "one", false: "many"}[inproc]
		t.Run(name, func(t *testing.T) { smallBoxCase(t, "box"+name, inproc, length) }) // one after the other: both load the machine
	}
}

func smallBoxCase(t *testing.T, name string, inproc bool, length time.Duration) {
	group := newMemoryGroup(t, name, smallMemory) // first: it goes when the lab has ended what is in it
	s := &smallBox{soak: soak{world: newWorld(t, name), memory: map[string][]float64{}}, inproc: inproc, group: group}
	s.diamond()
	s.peers()
	s.flash = newFlash(t, s.lab.Dir())
	s.boot()
	s.mesh = s.meshAddress("b")
	s.echoUDP()
	s.traffic(3 * time.Second) // what is made once is made now
	began := time.Now()
	written := s.flash.read(t)
	s.traffic(length)
	s.checkFlash("busy", s.flash.read(t).since(written), time.Since(began))
	if length >= time.Minute {
		s.idle(length / 4)
	}
	s.checkMemory()
	s.checkApps()
	s.checkKinds()
	s.must(s.viscript.Stop(20 * time.Second))
}

// smallBox is box a of the diamond.
type smallBox struct {
	soak
	inproc   bool
	flash    *flash
	group    *memoryGroup
	viscript *lab.Process
	resolver string   // HOST:PORT of the vpn's
	again    []daemon // of the peers, which restart
}

// peers starts all but box a.
func (s *smallBox) peers() {
	s.t.Helper()
	node := func(box string, args ...string) daemon {
		all := []string{"node", "run", "--name", box, "--listen", "udp://[::]:" + meshPort, "--open", "--no-lan"}
		return daemon{box, "node", append(all, args...)}
	}
	s.again = []daemon{
		node("r1"),
		node("r2"),
		node("b", "--peer", s.peer("r1", "10.2.1.2"), "--peer", s.peer("r2", "10.2.2.2")),
		{"b", "vpn", []string{"vpn", "server", "--exit", "--allow-private", "--allow", s.key["a"]}},
		{"b", "socks", []string{"socks", "server", "--allow", s.key["a"], "--allow-private"}},
	}
	if runtime.NumCPU() > 1 { // the first is the small box's
		for _, box := range []string{"r1", "r2", "b"} {
			s.box[box].Wrap("taskset", "-c", "1")
		}
	}
	for _, d := range s.again {
		p := s.start(d.box, d.what, d.args...)
		if d.what == "node" {
			s.wait("node of "+d.box, func(ctx context.Context) error {
				_, err := s.box[d.box].Skywire(ctx, "node", "status")
				return s.alive(p, err)
			})
		}
	}
	s.oddServer("web", "10.50.0.2:7000")
	s.oddServer("b", "[::]:7000")
}

const smallConfig = `settings: {runHeadless: true}
node: {name: a, open: true, memory: 64MB, listen: ["udp://[::]:%s"], peers: ["%s", "%s"]}
apps:
  node: {path: skywire-node, default_args: [run, --no-lan], inproc: %[5]t, autostart: true, ready: {notify: true}}
  vpn: {path: skywire-vpn, default_args: [client, --server, %[4]s, --exit], inproc: %[5]t, autostart: true, depends_on: [node]}
  socks: {path: skywire-socks, default_args: [client, --listen, "127.0.0.1:1080", --server, %[4]s], inproc: %[5]t, autostart: true, depends_on: [node]}
`

// enter makes the shell a box: its memory, its flash with its own copy of the program, one processor.
const enter = `set -e
image=$1 dir=$2 state=$3 program=$4; shift 4
until [ -e "$dir/limited" ]; do sleep 0.05; done
mkdir -p "$dir/flash"
mount -o loop,noatime "$image" "$dir/flash"
cp -a "$state/." "$dir/flash/"
cp "$program" "$dir/flash/skywire"
sync -f "$dir/flash"
mount --bind "$dir/flash" "$state"
shift
exec taskset -c 0 "$state/skywire" "$@"
`

// boot starts viscript with everything.
func (s *smallBox) boot() {
	s.t.Helper()
	a := s.box["a"]
	s.must(a.WriteConfig(fmt.Sprintf(smallConfig, meshPort, s.peer("r1", "10.1.1.2"), s.peer("r2", "10.1.2.2"), s.key["b"], s.inproc)))
	program, err := builtBinary()
	s.must(err)
	a.Wrap("env", "GODEBUG=gctrace=1", "sh", "-c", enter, "sh", s.flash.image, a.Dir, a.State(), program)
	began := time.Now()
	s.viscript = s.start("a", "viscript", "viscript", "run")
	a.Wrap()
	s.must( // ip netns exec hides the cgroups, so it is put there from outside
		os.WriteFile(filepath.Join(s.group.dir, "cgroup.procs"), fmt.Appendln(nil, s.viscript.PID()), 0),
		os.WriteFile(filepath.Join(a.Dir, "limited"), nil, 0o600))
	s.wait("all apps of the small box", func(ctx context.Context) error {
		if _, err := a.Exec(ctx, "ping", "-c1", "-W1", "10.50.0.2"); err != nil {
			return s.alive(s.viscript, err)
		}
		_, err := a.Shell(ctx, "ss -Htln sport = :1080 | grep -q .")
		return s.alive(s.viscript, err)
	})
	var v struct{ DNS struct{ Server string } }
	s.must(a.SkywireJSON(s.t.Context(), &v, "vpn", "status"))
	s.resolver = v.DNS.Server
	s.t.Logf("through the vpn %.1f s after the start", time.Since(began).Seconds())
}

// traffic is a day's: much by the vpn, many short connections, names, pings; links come and go, peers restart.
func (s *smallBox) traffic(length time.Duration) {
	s.t.Helper()
	web, mesh := "10.50.0.2:7000", net.JoinHostPort(s.mesh, "7000")
	s.work(length, []work{
		{"bulk through the vpn", 2, func(context.Context) error { return s.download(web) }},
		{"bulk over the mesh", 1, func(context.Context) error { return s.download(mesh) }},
		{"echo through the vpn", 1, func(context.Context) error { return s.cutEcho(web, false) }},
		{"echo through socks", 2, func(context.Context) error { return s.cutEcho(web, true) }},
		{"short connections", 8, func(context.Context) error { return s.short(web) }},
		{"names", 2, s.name},
		{"datagrams", 1, s.datagrams},
		{"ping", 1, func(ctx context.Context) error {
			_, err := s.box["a"].Exec(ctx, "ping", "-q", "-c", "50", "-i", "0.02", "-W", "2", s.mesh)
			return err
		}},
		{"flap", 1, s.flap},
		{"restart of a peer", 1, s.restart},
	})
}

type work struct {
	name    string
	workers int
	once    func(context.Context) error
}

// work runs all kinds for a time and waits until the last has ended.
func (s *smallBox) work(length time.Duration, all []work) {
	ctx, cancel := context.WithTimeout(s.t.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	s.kinds = nil
	for _, w := range all {
		k := &soakKind{name: w.name}
		s.kinds = append(s.kinds, k)
		for range w.workers {
			wg.Go(func() { k.run(ctx, w.once) })
		}
	}
	wg.Wait()
}

// name asks the box's own resolver for b.
func (s *smallBox) name(context.Context) error {
	var c net.Conn
	err := s.box["a"].Enter(func() (err error) {
		c, err = net.Dial("udp", s.resolver)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{
			{Name: dnsmessage.MustNewName(s.key["b"] + ".mesh."), Type: dnsmessage.TypeAAAA, Class: dnsmessage.ClassINET},
		},
	}
	q, err := m.Pack()
	if err != nil {
		return err
	}
	if _, err := c.Write(q); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	var r dnsmessage.Message
	if err := r.Unpack(buf[:n]); err != nil {
		s.t.Errorf("the resolver answered %x: %v", buf[:n], err)
		return err
	}
	if len(r.Answers) != 1 {
		return fmt.Errorf("b: %v", r.RCode)
	}
	a, ok := r.Answers[0].Body.(*dnsmessage.AAAAResource)
	if !ok || netip.AddrFrom16(a.AAAA).String() != s.mesh {
		s.t.Errorf("b is %v, want %s", r.Answers[0].Body, s.mesh)
	}
	<-time.After(50 * time.Millisecond)
	return nil
}

// cutEcho is echo beside exits that end: what comes back may be cut, since an application that has ended its own direction
// sees no reset (mesh/app.Stream), but it is never anything else than was sent.
func (s *smallBox) cutEcho(addr string, proxy bool) error {
	c, err := s.connect(addr, proxy)
	if err != nil {
		return err
	}
	defer c.Close()
	want, err := io.ReadAll(known(rand.Int64N(300_000)))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, _ = c.Write([]byte{askEcho})
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	})
	got, err := io.ReadAll(c)
	switch {
	case !bytes.HasPrefix(want, got):
		s.t.Errorf("echo of %d bytes: %d others came back", len(want), len(got))
	case err == nil && len(got) < len(want):
		err = fmt.Errorf("echo of %d bytes: cut after %d", len(want), len(got))
	}
	return err
}

// short opens a connection by the proxy, says a byte and closes.
func (s *smallBox) short(addr string) error {
	c, err := s.connect(addr, true)
	if err != nil {
		return err
	}
	defer c.Close()
	b := []byte{askEcho, 1}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err = c.Read(b[:1])
	return err
}

// restart ends a program of the peers and starts it again.
func (s *smallBox) restart(ctx context.Context) error {
	d := s.again[rand.IntN(len(s.again))]
	s.mu.Lock()
	p := s.run[d.box+" "+d.what]
	s.mu.Unlock()
	if err := p.Stop(10 * time.Second); err != nil {
		return err
	}
	s.start(d.box, d.what, d.args...)
	select {
	case <-ctx.Done():
	case <-time.After(8 * time.Second):
	}
	return nil
}

// checkMemory wants that the kernel has killed nothing.
func (s *smallBox) checkMemory() {
	s.t.Helper()
	peak, kills := s.group.read(s.t)
	s.t.Logf("memory of the box: %.1f MB at most, of %d; programs now %s", mb(peak), smallMemory>>20, s.programs())
	if kills > 0 {
		s.t.Errorf("the kernel killed %d programs of the box for want of memory", kills)
	}
}

// programs are the resident memory and the share of each program of the box.
func (s *smallBox) programs() string {
	var all []string
	b, err := os.ReadFile(filepath.Join(s.group.dir, "cgroup.procs"))
	s.must(err)
	for _, pid := range strings.Fields(string(b)) {
		name, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		words := strings.Split(string(name), "\x00")
		rss, pss := memoryOf(pid)
		all = append(all, fmt.Sprintf("%s %.1f (PSS %.1f)", filepath.Base(words[0]), rss/1e3, pss/1e3))
	}
	return strings.Join(all, ", ") + " MB"
}

// memoryOf is the resident and the proportional memory of a process in kB.
func memoryOf(pid string) (rss, pss float64) {
	b, _ := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 {
			n, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "Rss:":
				rss = n
			case "Pss:":
				pss = n
			}
		}
	}
	return rss, pss
}

// checkApps wants all apps to run without ever having been restarted, and to collect garbage for less than a tenth of the
// time that they work.
func (s *smallBox) checkApps() {
	s.t.Helper()
	var items []struct {
		Name, State string
		Restarts    int
	}
	s.must(s.box["a"].SkywireJSON(s.t.Context(), &items, "viscript", "ps"))
	if len(items) != 3 {
		s.t.Errorf("%d apps: %+v", len(items), items)
	}
	for _, i := range items {
		if i.State != "ready" && i.State != "running" || i.Restarts != 0 {
			out, err := s.box["a"].Skywire(s.t.Context(), "viscript", "logs", i.Name)
			s.t.Errorf("%s is %s after %d restarts\n%s (%v)", i.Name, i.State, i.Restarts, out, err)
		}
		if s.inproc {
			continue
		}
		var r struct {
			PID    int
			Uptime float64 `json:"uptime_s"`
			App    struct {
				GC float64 `json:"gc_cpu"`
			}
		}
		s.must(s.box["a"].SkywireJSON(s.t.Context(), &r, "viscript", "ru", i.Name))
		s.share(i.Name, r.App.GC*r.Uptime, r.PID)
	}
	s.share("viscript", traced(s.t, s.viscript.Log), s.viscript.PID())
}

// share judges the seconds of collection of a process. The runtime takes them by the clock: where other programs of the machine
// take much of the processor, only those in which its threads waited for it as well can be compared with them.
func (s *smallBox) share(name string, gc float64, pid int) {
	s.t.Helper()
	ran, waited := scheduled(pid)
	s.t.Logf("%-8s %.2f s of CPU (%.2f s in wait for it), garbage %.2f s: %.1f %%, or %.1f %% of both", name, ran, waited, gc, 100*gc/ran, 100*gc/(ran+waited))
	quiet := waited < ran
	if ran > 1 && (gc > mostGC*(ran+waited) || quiet && gc > mostGC*ran) {
		s.t.Errorf("%s collects garbage for %.1f %% of its time", name, 100*gc/ran)
	}
}

// checkFlash bounds what went to the flash.
func (s *smallBox) checkFlash(when string, w writes, took time.Duration) {
	s.t.Helper()
	hours := took.Hours()
	s.t.Logf("flash, %s: %d kB in %d writes and %d flushes in %.0f s, an hour of this %.2f MB and %.0f flushes", when, w.bytes>>10, w.calls, w.flushes,
		took.Seconds(), mb(w.bytes)/hours, float64(w.flushes)/hours)
	if slack := int64(256 << 10); float64(w.bytes-slack) > mostFlash*hours { // what is written once
		s.t.Errorf("flash, %s: %d bytes in %.0f s are more than %d an hour", when, w.bytes, took.Seconds(), mostFlash)
	}
}

// idle leaves the box alone for a time and looks what it wrote.
func (s *smallBox) idle(length time.Duration) {
	s.t.Helper()
	began, written := time.Now(), s.flash.read(s.t)
	select {
	case <-time.After(length):
	case <-s.t.Context().Done():
	}
	s.checkFlash("idle", s.flash.read(s.t).since(written), time.Since(began))
}

// checkKinds wants that all kinds of traffic worked, mostly.
func (s *smallBox) checkKinds() {
	s.t.Helper()
	for _, k := range s.kinds {
		done, failed, why := k.done.Load(), k.failed.Load(), ""
		if p := k.last.Load(); p != nil {
			why = ", the last: " + *p
		}
		s.t.Logf("%-22s %6d done, %d failed%s", k.name, done, failed, why)
		if done == 0 || failed > 10+done {
			s.t.Errorf("%s: %d done, %d failed", k.name, done, failed)
		}
	}
}
