package netcfg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// commandWithin bounds a program that we ask to change its settings.
	commandWithin = 15 * time.Second
	// againEvery bounds how often a resolv.conf that others write is written again: nobody wins by being faster.
	againEvery = 20 * time.Second
	// dnsmasqWithin is when dnsmasq must be back after a restart.
	dnsmasqWithin = 5 * time.Second
)

// resolverChange is what an entry of kindResolver changed.
type resolverChange struct {
	Back    string   `json:"back"`
	Path    string   `json:"path,omitempty"`    // of the file, or of ours
	Command []string `json:"command,omitempty"` // that makes dnsmasq read it
}

// Resolver is the box's resolver as one device changes it. It has a journal of its own, RUN/dns-DEVICE.journal, so that
// its programs, which may take seconds, hold nobody up. One goroutine at a time uses it.
type Resolver struct {
	c    Config
	log  *slog.Logger
	j    *journal
	back resolverChange // which; as it would be journaled
	why  string         // of BackNone

	stands *Resolving // nil: nothing
	stale  []string   // makes dnsmasq forget a file that is gone; it waits for the next reason to start it again
	again  time.Time
	pid    int // of the back end when it was told
}

// OpenResolver takes back what an earlier run left, and finds out who resolves names on this box.
func OpenResolver(c Config) (*Resolver, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	j, _, err := openJournalAt(filepath.Join(c.Dir, "dns-"+c.Device+".journal"), c.Device)
	if err != nil {
		return nil, err
	}
	r := &Resolver{c: c, log: c.Log, j: j}
	err = r.takeBack()
	if err == nil {
		err = r.cleanFile(resolvPath) // after a power cut the journal is gone, and the file is not
	}
	if err == nil {
		err = j.begin(entry{Kind: kindOwner, Device: c.Device, PID: os.Getpid(), Boot: bootID(), NetNS: namespace()})
	}
	if err != nil {
		return nil, errors.Join(err, j.remove(true))
	}
	r.detect()
	if r.back.Back == BackDnsmasq { // the same after a power cut
		if err := r.dropFile(r.back); err != nil {
			return nil, errors.Join(err, j.remove(true))
		}
	}
	return r, nil
}

// Backend names who resolves names here; why says why it is nobody.
func (r *Resolver) Backend() (name, why string) { return r.back.Back, r.why }

// Whole reports that our server is asked about every name, not only those of its zones, and at port 53: libc knows no more.
func (r *Resolver) Whole() bool { return r.back.Back == BackFile }

// ResolverBackend names who resolves names on this box.
func ResolverBackend() string {
	r := &Resolver{c: Config{Device: "doctor"}}
	r.detect()
	return r.back.Back
}

// SystemResolvers are the resolvers of this box without us.
func SystemResolvers() (all []netip.AddrPort) {
	text, _ := os.ReadFile(resolvPath)
	for _, a := range nameservers(string(text)) {
		all = append(all, netip.AddrPortFrom(a, 53))
	}
	return all
}

// detect finds the back end. What answers in another network namespace is not ours, and neither is its resolv.conf.
func (r *Resolver) detect() {
	text, _ := os.ReadFile(resolvPath)
	servers := nameservers(string(text))
	local := slices.ContainsFunc(servers, ofThisBox)
	stub := slices.ContainsFunc(servers, func(a netip.Addr) bool { return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) })
	target, _ := filepath.EvalSymlinks(resolvPath)
	switch {
	case (stub || strings.HasPrefix(target, "/run/systemd/resolve/")) && found("resolvectl") && resolvedHere():
		r.back = resolverChange{Back: BackResolved}
		return
	case local && !stub:
		if path, command := dnsmasqFile(r.c.Device); path != "" {
			r.back = resolverChange{Back: BackDnsmasq, Path: path, Command: command}
			return
		}
	}
	if ofInit(resolvPath) {
		r.back, r.why = resolverChange{Back: BackNone}, "this network namespace has no resolv.conf of its own: give it one in /etc/netns/NAME"
		return
	}
	// Also of openresolv and Debian's resolvconf: the first leaves out all other servers once it hears of one on the loopback
	// device, so that a kill of ours would take all names along; the second knows none that excludes others.
	r.back = resolverChange{Back: BackFile, Path: resolvPath}
}

// ofThisBox reports whether an address is one of this box.
func ofThisBox(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	all, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(all, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr() == a
	})
}

// ofInit reports whether a file is the machine's, while we are in another network than the machine's first process.
func ofInit(path string) bool {
	var net1, file1, file unix.Stat_t
	if unix.Stat("/proc/1/ns/net", &net1) != nil || net1.Ino == namespace() {
		return false
	}
	return unix.Stat("/proc/1/root"+path, &file1) == nil && unix.Stat(path, &file) == nil &&
		file1.Dev == file.Dev && file1.Ino == file.Ino
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func found(program string) bool { _, err := exec.LookPath(program); return err == nil }

// daemons are the processes of a name, of which the kernel keeps 15 letters, in our network namespace.
func daemons(comm string) (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil || strings.TrimSpace(string(b)) != comm {
			continue
		}
		var st unix.Stat_t
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		if err == nil && unix.Stat(filepath.Join(filepath.Dir(p), "ns/net"), &st) == nil && st.Ino == namespace() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// resolvedHere reports whether systemd-resolved answers in our network namespace. Who is not root can't see whose namespace another's
// process is in, nor, in a confined unit, the process: its listener at 127.0.0.53 says the same.
func resolvedHere() bool {
	if len(daemons("systemd-resolve")) > 0 {
		return true
	}
	b, _ := os.ReadFile("/proc/self/net/udp") // addresses as the processor writes numbers
	return bytes.Contains(b, []byte(" 3500007F:0035 ")) || bytes.Contains(b, []byte(" 7F000035:0035 "))
}

// dnsmasqFile is where dnsmasq reads a file of ours, and how it is made to.
func dnsmasqFile(device string) (path string, command []string) {
	for _, pid := range daemons("dnsmasq") {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		dir := confDir(strings.Split(string(b), "\x00"), func(path string) string {
			text, _ := os.ReadFile(path)
			return string(text)
		})
		if i, err := os.Stat(dir); dir == "" || err != nil || !i.IsDir() {
			continue
		}
		switch {
		case strings.Contains(dir, "NetworkManager"):
			command = []string{"nmcli", "general", "reload", "dns-full"}
		case exists("/run/systemd/system"):
			command = []string{"systemctl", "restart", "dnsmasq"}
		case exists("/etc/init.d/dnsmasq"): // OpenWrt, and others without systemd
			command = []string{"/etc/init.d/dnsmasq", "restart"}
		default:
			continue
		}
		return filepath.Join(dir, "skywire-"+device+".conf"), command
	}
	return "", nil
}

// Set makes the box ask as s says. What stood before is replaced.
func (r *Resolver) Set(s Resolving) error {
	if r.back.Back == BackNone || r.stands != nil && same(*r.stands, s) {
		return nil
	}
	if s.Server.Port() != 53 && r.Whole() {
		return fmt.Errorf("resolv.conf knows no ports, and port 53 of %s is taken", s.Server.Addr())
	}
	if r.stands == nil { // one entry covers what is set later
		c := r.back
		if _, err := r.j.add(entry{Kind: kindResolver, Device: r.c.Device, Resolver: &c}); err != nil {
			return err
		}
	}
	r.stands = &s
	return r.apply()
}

func same(a, b Resolving) bool {
	return a.Server == b.Server && a.All == b.All && slices.Equal(a.Zones, b.Zones)
}

// apply makes the box agree with what should stand.
func (r *Resolver) apply() (err error) {
	s := *r.stands
	r.again = time.Now().Add(againEvery)
	switch r.back.Back {
	case BackFile:
		err = r.writeFile(s)
	case BackDnsmasq:
		err = r.tellDnsmasq(s)
	case BackResolved:
		err = r.tellResolved(s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.back.Back, explain(err))
	}
	return nil
}

// Check puts back what others changed meanwhile: a DHCP client that wrote resolv.conf, a resolver that was started again.
// Call it now and then. changed reports that something had to be done.
func (r *Resolver) Check() (changed bool, err error) {
	if r.stands == nil || time.Now().Before(r.again) {
		return false, nil
	}
	whole := true
	switch r.back.Back {
	case BackFile:
		text, _ := os.ReadFile(resolvPath)
		whole = strings.Contains(string(text), "nameserver "+r.stands.Server.Addr().String()+"\n")
	case BackDnsmasq:
		whole = exists(r.back.Path)
	case BackResolved:
		pids := daemons("systemd-resolve")
		whole = len(pids) == 0 || pids[0] == r.pid
	}
	if whole {
		return false, nil
	}
	return true, r.apply()
}

// writeFile puts our lines into resolv.conf.
func (r *Resolver) writeFile(s Resolving) error {
	b, err := os.ReadFile(resolvPath)
	if err != nil && !gone(err) {
		return err
	}
	rest, _, nothing := withoutUs(string(b), r.c.Device)
	return replaceFile(resolvPath, withUs(rest, r.c.Device, err == nil && !nothing, s))
}

// cleanFile takes our lines out of a resolv.conf, if there are any. One that somebody else has written since has none.
func (r *Resolver) cleanFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	rest, ours, nothing := withoutUs(string(b), r.c.Device)
	if !ours || ofInit(path) {
		return nil
	}
	if nothing {
		if os.Remove(path) == nil {
			return nil
		}
		rest = ""
	}
	return replaceFile(path, rest)
}

// replaceFile changes a file, whole or not at all, where its folder allows it. A link stays, the file behind it changes; a
// file that is mounted (containers) can only be written in place.
func replaceFile(path, text string) error {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		path = p
	} else if p, err := os.Readlink(path); err == nil { // to nowhere yet
		if !filepath.IsAbs(p) {
			p = filepath.Join(filepath.Dir(path), p)
		}
		path = p
	}
	mode := fs.FileMode(0o644)
	if i, err := os.Stat(path); err == nil {
		mode = i.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".skywire-*")
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
		if err == nil {
			err = os.Rename(f.Name(), path)
		}
		if err == nil {
			return nil
		}
		os.Remove(f.Name())
	}
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EROFS) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = w.WriteString(text)
	return errors.Join(err, w.Sync(), w.Close())
}

// tellDnsmasq writes our file and makes dnsmasq read it. If it does not come back with it, it gets the file taken away: a
// box without any names is worse than one without ours.
func (r *Resolver) tellDnsmasq(s Resolving) error {
	if err := replaceFile(r.back.Path, dnsmasqConfig(r.c.Device, s)); err != nil {
		return err
	}
	r.stale = nil
	err := command(r.back.Command...)
	if err == nil && awaitDaemon("dnsmasq") {
		return nil
	}
	return errors.Join(errors.New("did not come back with our settings"), err, r.dropFile(r.back), r.forget())
}

// dropFile takes our file away from dnsmasq, which still has it in mind.
func (r *Resolver) dropFile(c resolverChange) error {
	err := os.Remove(c.Path)
	if err == nil {
		r.stale = c.Command
	}
	if gone(err) {
		return nil
	}
	return err
}

// forget makes dnsmasq read its files again, if one of ours was among them.
func (r *Resolver) forget() error {
	words := r.stale
	r.stale = nil
	if len(words) == 0 || len(daemons("dnsmasq")) == 0 && words[0] != "/etc/init.d/dnsmasq" {
		return nil // it reads them when it is started
	}
	return command(words...)
}

// awaitDaemon waits until a program runs, and goes on running for a moment.
func awaitDaemon(comm string) bool {
	t := time.NewTicker(dnsmasqWithin / 16)
	defer t.Stop()
	last := 0
	for range 16 {
		<-t.C
		pids := daemons(comm)
		if len(pids) > 0 && pids[0] == last {
			return true
		}
		if last = 0; len(pids) > 0 {
			last = pids[0]
		}
	}
	return false
}

// tellResolved sets the link's servers and the names that are routed to them.
func (r *Resolver) tellResolved(s Resolving) error {
	server := s.Server.Addr().String()
	if s.Server.Port() != 53 {
		server = s.Server.String()
	}
	var domains []string
	for _, z := range s.Zones {
		domains = append(domains, "~"+z)
	}
	if s.All {
		domains = append(domains, "~.")
	}
	if pids := daemons("systemd-resolve"); len(pids) > 0 {
		r.pid = pids[0]
	}
	dev := r.c.Device
	for _, setting := range []string{"dnsovertls", "dnssec", "llmnr", "mdns"} { // not those of the world outside
		if err := command("resolvectl", setting, dev, "no"); err != nil {
			r.log.Debug("setting of the resolver not made", "name", setting, "err", err)
		}
	}
	err := command(append([]string{"resolvectl", "domain", dev}, domains...)...)
	if err == nil {
		err = command("resolvectl", "default-route", dev, strconv.FormatBool(s.All))
	}
	if err == nil {
		err = command("resolvectl", "dns", dev, server)
	}
	return err
}

// takeBack undoes the entries of the journal. What another boot or namespace had running is gone, its files are not.
func (r *Resolver) takeBack() error {
	var errs []error
	for _, e := range slices.Backward(slices.Clone(r.j.live)) {
		if e.Kind != kindResolver {
			continue
		}
		var err error
		switch c := *e.Resolver; c.Back {
		case BackFile:
			err = r.cleanFile(c.Path)
		case BackDnsmasq:
			err = r.dropFile(c)
		case BackResolved:
			if _, e := net.InterfaceByName(r.c.Device); e == nil && resolvedHere() {
				err = command("resolvectl", "revert", r.c.Device)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take back what %s was told: %w", e.Resolver.Back, explain(err)))
			continue
		}
		errs = append(errs, r.j.undone(e))
	}
	return errors.Join(errs...)
}

// Close takes everything back. What can't be stays in the journal for the next run.
func (r *Resolver) Close() error {
	if r.j == nil {
		return nil
	}
	err := errors.Join(r.takeBack(), r.forget())
	err = errors.Join(err, r.j.remove(err != nil))
	r.j, r.stands = nil, nil
	return err
}

// command runs a program and says what it said when it fails.
func command(words ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandWithin)
	defer cancel()
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	c.WaitDelay = time.Second // a daemon that it starts may keep its output
	out, err := c.CombinedOutput()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, bytes.TrimSpace(out[:min(len(out), 300)]))
	}
	return nil
}

// ResolverLeftovers says what killed runs left in the box's resolver, of the journals in dir and of resolv.conf itself.
func ResolverLeftovers(dir string) (all []string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "dns-*.journal"))
	for _, p := range paths {
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if locked, err := lockFile(f); err == nil && locked {
			b, _ := os.ReadFile(p)
			if _, live, _ := parseJournal(b); len(live) > 0 {
				all = append(all, "settings of the resolver by a vpn that is gone ("+p+")")
			}
			_ = unlockFile(f)
		}
		f.Close()
	}
	for _, device := range resolvDevices() {
		if !slices.ContainsFunc(paths, func(p string) bool { return p == filepath.Join(dir, "dns-"+device+".journal") }) {
			all = append(all, "lines of "+device+" in "+resolvPath)
		}
	}
	return all
}

// resolvDevices are the devices that have lines in resolv.conf.
func resolvDevices() (devices []string) {
	b, _ := os.ReadFile(resolvPath)
	for _, line := range strings.Split(string(b), "\n") {
		if w := strings.Fields(line); len(w) > 3 && strings.HasPrefix(line, "# skywire ") && w[3] == "begin:" {
			devices = append(devices, w[2])
		}
	}
	return devices
}

// RepairResolver takes back what killed runs left; what a running vpn holds stays.
func RepairResolver(dir string, log *slog.Logger) error {
	devices := resolvDevices()
	paths, _ := filepath.Glob(filepath.Join(dir, "dns-*.journal"))
	for _, p := range paths {
		device := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(p), "dns-"), ".journal")
		if !slices.Contains(devices, device) {
			devices = append(devices, device)
		}
	}
	var errs []error
	for _, d := range devices {
		r, err := OpenResolver(Config{Dir: dir, Device: d, Log: log})
		var held *HeldError
		if errors.As(err, &held) {
			continue
		}
		if err == nil {
			err = r.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
