package netcfg

import (
	"net/netip"
	"strconv"
	"strings"
)

// Back ends: who answers the programs of this box, and so where it is said which names are asked of us.
const (
	BackDnsmasq  = "dnsmasq"
	BackResolved = "systemd-resolved"
	BackFile     = "resolv.conf" // of whoever writes it: a person, a DHCP client, either resolvconf
	BackNone     = "none"        // resolv.conf is not this network's
)

// resolvPath is what libc reads.
const resolvPath = "/etc/resolv.conf"

// Resolving is what the box's resolver is to do with names.
type Resolving struct {
	Server netip.AddrPort // our name server
	Zones  []string       // names to ask it about: "mesh", "8.b.d.0.1.0.0.2.ip6.arpa"
	All    bool           // and all others
}

// Lines of ours in resolv.conf. What we add stands between begin and end; a line that must not count meanwhile stays where
// it is, behind off. So taking back is a matter of the text alone: it needs no other memory, and leaves alone what somebody
// else wrote between.
func beginLine(device string) string {
	return "# skywire " + device + " begin: the vpn added these lines and takes them back"
}
func endLine(device string) string { return "# skywire " + device + " end" }
func offMark(device string) string { return "# skywire " + device + " off: " }

// newMark behind a begin line says that there was no file.
const newMark = " (no file before)"

// withoutUs is the text of a resolv.conf without the lines of a device. ours reports whether there were any, gone that
// there was no file before and nothing else is in it.
func withoutUs(text, device string) (rest string, ours, gone bool) {
	var out strings.Builder
	inside, fresh := false, false
	for _, line := range strings.SplitAfter(text, "\n") {
		bare := strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(bare, beginLine(device)):
			inside, ours = true, true
			fresh = strings.HasSuffix(bare, newMark)
		case bare == endLine(device):
			inside = false
		case inside:
		case strings.HasPrefix(line, offMark(device)):
			out.WriteString(strings.TrimPrefix(line, offMark(device)))
			ours = true
		default:
			out.WriteString(line)
		}
	}
	return out.String(), ours, fresh && strings.TrimSpace(out.String()) == ""
}

// withUs puts the lines of a device into the text of a resolv.conf that has none, behind the comments at its head: by the
// first of them resolvconf knows a file as its own.
func withUs(text, device string, exists bool, r Resolving) string {
	var out strings.Builder
	for strings.HasPrefix(text, "#") && !strings.HasPrefix(text, "# skywire ") {
		line, rest, whole := strings.Cut(text, "\n")
		if !whole {
			break
		}
		out.WriteString(line + "\n")
		text = rest
	}
	out.WriteString(beginLine(device))
	if !exists {
		out.WriteString(newMark)
	}
	out.WriteString("\nnameserver " + r.Server.Addr().String())
	var options string
	var rest strings.Builder
	for _, line := range strings.SplitAfter(text, "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) > 0 && words[0] == "nameserver" && r.All:
			rest.WriteString(offMark(device) + line)
		case len(words) > 1 && words[0] == "options" && strings.Contains(line, "rotate"):
			// libc would ask another one first every other time.
			rest.WriteString(offMark(device) + line)
			if words = dropWord(words, "rotate"); len(words) > 1 {
				options += "\n" + strings.Join(words, " ")
			}
		default:
			rest.WriteString(line)
		}
	}
	out.WriteString(options + "\n" + endLine(device) + "\n" + rest.String())
	return out.String()
}

func dropWord(words []string, word string) (rest []string) {
	for _, w := range words {
		if w != word {
			rest = append(rest, w)
		}
	}
	return rest
}

// nameservers are those of a resolv.conf, without what any device of ours added or put out of force.
func nameservers(text string) (all []netip.Addr) {
	inside := false
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) > 3 && words[0] == "#" && words[1] == "skywire" {
			inside = words[3] == "begin:" || inside && words[3] != "end"
			if len(words) > 5 && words[3] == "off:" { // it comes back, and until then we stand for it
				words = words[4:]
			}
		}
		if inside || len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// dnsmasqConfig is the file that tells dnsmasq about us.
func dnsmasqConfig(device string, r Resolving) string {
	server := r.Server.Addr().String() + "#" + strconv.Itoa(int(r.Server.Port()))
	var b strings.Builder
	b.WriteString("# " + device + " of skywire; the vpn takes this file away when it ends\n")
	for _, z := range r.Zones {
		b.WriteString("server=/" + z + "/" + server + "\n")
		b.WriteString("rebind-domain-ok=/" + z + "/\n") // mesh addresses are private ones
	}
	if r.All {
		b.WriteString("no-resolv\nserver=" + server + "\n")
	}
	return b.String()
}

// confDir finds the folder of further settings in what dnsmasq was started with; conf reads a file. The first one counts
// that takes every file, or those that end in .conf.
func confDir(args []string, conf func(path string) string) string {
	file, dirs := "/etc/dnsmasq.conf", []string(nil)
	for i, a := range args {
		value := func(short, long string) (string, bool) {
			if v, ok := strings.CutPrefix(a, long+"="); ok {
				return v, true
			}
			if (a == short || a == long) && i+1 < len(args) {
				return args[i+1], true
			}
			v, ok := strings.CutPrefix(a, short)
			return v, ok && v != "" && !strings.HasPrefix(a, "--")
		}
		if v, ok := value("-C", "--conf-file"); ok {
			file = v
		}
		if v, ok := value("-7", "--conf-dir"); ok {
			dirs = append(dirs, v)
		}
	}
	for _, line := range strings.Split(conf(file), "\n") {
		if name, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == "conf-dir" {
			dirs = append(dirs, strings.TrimSpace(v))
		}
	}
	for _, d := range dirs {
		words := strings.Split(d, ",")
		takes, only := false, false
		for _, w := range words[1:] {
			if suffix, ok := strings.CutPrefix(w, "*"); ok { // a bare ending is left out, one behind a star taken
				only = true
				takes = takes || suffix == ".conf" || suffix == ""
			}
		}
		if takes || !only {
			return words[0]
		}
	}
	return ""
}
