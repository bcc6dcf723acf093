//go:build bench

package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"skywire/cmd/internal/lab"
)

// The tunnels of others, each with a device of its own in the same boxes as ours, all idle but the one that is measured.
// Each runs as its documentation says for speed: nebula with the socket buffers of its example, openvpn as a TLS pair with
// AES-256-GCM in user space, tinc and wireguard-go as they are.

// hop is a box on the way, with its address towards the one before and towards the one after.
type hop struct{ box, prev, next string }

// benchTool returns the path of a program of .ci/bench, built once a process.
func (b *bench) benchTool(name string) string {
	b.t.Helper()
	dir, err := benchTools()
	b.must(err)
	return filepath.Join(dir, name)
}

var benchTools = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../../build/bench")
	if err != nil {
		return "", err
	}
	c := exec.Command("sh", "-c", `mkdir -p "$1" && go build -o "$1/bench" . && go build -o "$1/" tool`, "sh", dir)
	c.Dir = "../../.ci/bench"
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath -mod=readonly")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build .ci/bench: %w: %s", err, out)
	}
	return dir, nil
})

// device waits until a tunnel made its device, addresses it and brings it up.
func (b *bench) device(p *lab.Process, dev, addr string) {
	b.t.Helper()
	box := p.Box
	b.wait(dev+" of "+box.Name, func(context.Context) error { return b.alive(p, box.IP("link show dev "+dev)) })
	b.must(box.IP("addr replace "+addr+" dev "+dev), box.IP("link set "+dev+" up"))
}

// wireguard runs wireguard-go along hops: one tunnel between the first and the last, or hop by hop with the kernel
// routing between them, as wireguard relays.
func (b *bench) wireguard(name, dev, subnet string, hops ...hop) *way {
	b.t.Helper()
	keys := make([]*ecdh.PrivateKey, len(hops))
	for i := range hops {
		k, err := ecdh.X25519().GenerateKey(rand.Reader)
		b.must(err)
		keys[i] = k
	}
	y := b.tunnel(name, subnet, hops)
	port := b.port()
	for i, h := range hops {
		args := []string{"wireguard", dev, port, hex.EncodeToString(keys[i].Bytes())}
		peer := func(at int, host string, first, last int) {
			var allowed []string
			for n := first; n <= last; n++ {
				allowed = append(allowed, fmt.Sprintf("%s.%d/32", subnet, n+1))
			}
			args = append(args, hex.EncodeToString(keys[at].PublicKey().Bytes()), host+":"+port, strings.Join(allowed, ","))
		}
		if i > 0 {
			peer(i-1, h.prev, 0, i-1)
		}
		if i+1 < len(hops) {
			peer(i+1, h.next, i+1, len(hops)-1)
		}
		p := b.program(y, h.box, dev, b.benchTool("bench"), args...)
		b.device(p, dev, fmt.Sprintf("%s.%d/24", subnet, i+1))
	}
	return y
}

// tunnel is a way through a tunnel whose device in the n-th box has the address SUBNET.n, counted from one.
func (b *bench) tunnel(name, subnet string, hops []hop) *way {
	return newWay(name, hops[0].box, hops[len(hops)-1].box, fmt.Sprintf("%s.%d", subnet, len(hops)))
}

// port is a UDP port that no other tunnel of this part uses.
func (b *bench) port() string {
	b.ports++
	return fmt.Sprint(20000 + b.ports)
}

// program starts one program of a way.
func (b *bench) program(y *way, box, name, path string, args ...string) *lab.Process {
	b.t.Helper()
	p, err := b.box[box].Start(name, path, args...)
	b.must(err)
	y.programs = append(y.programs, p)
	if box != y.from && box != y.to {
		y.middle = append(y.middle, p)
	}
	return p
}

// bareCopy joins two boxes by two TUN devices and a program that copies between them.
func (b *bench) bareCopy(name, subnet, from, to string) *way {
	b.t.Helper()
	y := newWay(name, from, to, subnet+".2")
	p := b.program(y, from, "copy", b.benchTool("bench"), "copy", "copy0", b.box[from].NS, b.box[to].NS)
	b.device(p, "copy0", subnet+".1/24")
	b.wait("copy0", func(context.Context) error { return b.box[to].IP("link show dev copy0") })
	b.must(b.box[to].IP("addr replace "+subnet+".2/24 dev copy0"), b.box[to].IP("link set copy0 up"))
	return y
}

const nebulaConfig = `pki: {ca: ca.crt, cert: %[1]s.crt, key: %[1]s.key}
static_host_map: {%[2]s}
lighthouse: {am_lighthouse: %[3]v, hosts: [%[4]s], local_allow_list: {interfaces: {"^(next|prev)$": true}}}
cipher: %[7]s
listen: {host: 0.0.0.0, port: %[5]s, read_buffer: 10485760, write_buffer: 10485760}
relay: {am_relay: %[3]v, use_relays: true, relays: [%[4]s]}
tun: {dev: %[6]s, mtu: 1300, tx_queue: 500}
logging: {level: warning, format: text}
firewall: {outbound: [{port: any, proto: any, host: any}], inbound: [{port: any, proto: any, host: any}]}
`

// nebula runs nebula between two boxes, or through the relay between them: then the two must not reach each other.
func (b *bench) nebula(name, dev, subnet string, hops ...hop) *way {
	b.t.Helper()
	dir := filepath.Join(b.lab.Dir(), dev)
	b.must(os.MkdirAll(dir, 0o755))
	cert := func(args ...string) {
		b.t.Helper()
		c := exec.Command(b.benchTool("nebula-cert"), args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			b.t.Fatalf("nebula-cert: %v: %s", err, out)
		}
	}
	cert("ca", "-name", dev)
	port := b.port()
	cipher := "aes"
	if b.slow {
		cipher = "chachapoly"
	}
	last := len(hops)
	y := b.tunnel(name, subnet, hops)
	for i, h := range hops {
		cert("sign", "-name", h.box, "-ip", fmt.Sprintf("%s.%d/24", subnet, i+1))
		var known []string
		relay, through := i > 0 && i+1 < last, ""
		if h.prev != "" && !relay {
			known = append(known, fmt.Sprintf(`"%s.%d": ["%s:%s"]`, subnet, i, h.prev, port))
		}
		if h.next != "" && !relay {
			known = append(known, fmt.Sprintf(`"%s.%d": ["%s:%s"]`, subnet, i+2, h.next, port))
		}
		if last > 2 && !relay {
			through = fmt.Sprintf(`"%s.2"`, subnet)
		}
		conf := filepath.Join(dir, h.box+".yml")
		text := fmt.Sprintf(nebulaConfig, h.box, strings.Join(known, ", "), relay, through, port, dev, cipher)
		b.must(os.WriteFile(conf, []byte(text), 0o600))
		if relay { // the two would find a way past it
			b.must(b.box[h.box].NFT(fmt.Sprintf(`table inet past {
	chain forward { type filter hook forward priority 0; udp dport %s drop; }
}`, port)))
		}
		p := b.program(y, h.box, dev, "sh", "-c", `cd "$1" && exec "$2" -config "$3"`, "sh", dir, b.benchTool("nebula"), conf)
		b.wait(dev+" of "+h.box, func(context.Context) error { return b.alive(p, p.Box.IP("link show dev "+dev)) })
	}
	return y
}

// tinc runs tinc 1.0 as Debian has it.
func (b *bench) tinc(name, dev, subnet string, hops ...hop) *way {
	b.t.Helper()
	y := b.tunnel(name, subnet, hops)
	dir := filepath.Join(b.lab.Dir(), dev)
	port := b.port()
	hosts := make([]string, 2)
	for i, h := range hops {
		home := filepath.Join(dir, h.box)
		b.must(os.MkdirAll(filepath.Join(home, "hosts"), 0o755))
		connect := ""
		if i == 1 {
			connect = "ConnectTo = " + hops[0].box + "\n"
		}
		b.must(os.WriteFile(filepath.Join(home, "tinc.conf"),
			[]byte(fmt.Sprintf("Name = %s\nDevice = /dev/net/tun\nInterface = %s\nPort = %s\n%s", h.box, dev, port, connect)), 0o600))
		address := []string{hops[1].prev, hops[0].next}[i]
		hosts[i] = filepath.Join(home, "hosts", h.box)
		b.must(os.WriteFile(hosts[i], []byte(fmt.Sprintf("Address = %s %s\nSubnet = %s.%d/32\n", address, port, subnet, i+1)), 0o600))
		c := exec.Command("tincd", "-c", home, "-K2048")
		if out, err := c.CombinedOutput(); err != nil {
			b.t.Fatalf("tincd -K: %v: %s", err, out)
		}
	}
	for i, h := range hops {
		card, err := os.ReadFile(hosts[i])
		b.must(err, os.WriteFile(filepath.Join(dir, hops[1-i].box, "hosts", h.box), card, 0o600))
	}
	for i, h := range hops {
		home := filepath.Join(dir, h.box)
		p := b.program(y, h.box, dev, "tincd", "-c", home, "-D", "--pidfile="+filepath.Join(home, "pid"))
		b.device(p, dev, fmt.Sprintf("%s.%d/24", subnet, i+1))
	}
	return y
}

// openvpn runs openvpn 2.6 as Debian has it, as a pair of peers that know each other's certificate.
func (b *bench) openvpn(name, dev, subnet string, hops ...hop) *way {
	b.t.Helper()
	y := b.tunnel(name, subnet, hops)
	dir := filepath.Join(b.lab.Dir(), dev)
	b.must(os.MkdirAll(dir, 0o755))
	port := b.port()
	cipher := "AES-256-GCM"
	if b.slow {
		cipher = "CHACHA20-POLY1305"
	}
	prints := make([]string, 2)
	for i, h := range hops {
		out, err := exec.Command("sh", "-c", `cd "$1" && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
	-keyout "$2.key" -out "$2.crt" -days 30 -subj "/CN=$2" 2>/dev/null && openssl x509 -in "$2.crt" -noout -fingerprint -sha256`,
			"sh", dir, h.box).Output()
		b.must(err)
		_, prints[i], _ = strings.Cut(strings.TrimSpace(string(out)), "=")
	}
	for i, h := range hops {
		args := []string{
			"--dev", dev, "--dev-type", "tun", "--disable-dco", "--proto", "udp", "--local", []string{hops[1].prev, hops[0].next}[i],
			"--remote", []string{hops[0].next, hops[1].prev}[i], "--port", port, "--data-ciphers", cipher,
			"--ifconfig", fmt.Sprintf("%s.%d", subnet, i+1), fmt.Sprintf("%s.%d", subnet, 2-i), "--topology", "p2p",
			"--cert", filepath.Join(dir, h.box+".crt"), "--key", filepath.Join(dir, h.box+".key"), "--peer-fingerprint", prints[1-i],
			"--verb", "1", "--sndbuf", "4194304", "--rcvbuf", "4194304", []string{"--tls-server", "--tls-client"}[i],
		}
		if i == 0 {
			args = append(args, "--dh", "none")
		}
		b.program(y, h.box, dev, "openvpn", args...)
	}
	return y
}

// fetched stands for the programs of .ci/bench in a list of programs.
const fetched = "what .ci/bench builds"

// missing names the programs that a way wants and the machine does not have, and cannot fetch.
func (b *bench) missing(programs ...string) []string {
	return slices.DeleteFunc(programs, func(p string) bool {
		if p == fetched {
			_, err := benchTools()
			if err != nil {
				b.t.Log(err)
			}
			return err == nil
		}
		_, err := exec.LookPath(p)
		return err == nil
	})
}
