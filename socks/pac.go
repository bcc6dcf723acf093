package socks

import (
	"fmt"
	"slices"
	"strings"
)

// PACType is the media type of a PAC file.
const PACType = "application/x-ns-proxy-autoconfig"

// PAC returns the rules as a script for browsers, which asks proxy (host:port) for everything that is not direct. What
// browsers cannot know, the user and the kind of packet, is left to the proxy, which has the same rules: so is blocking,
// since a browser without a way out would take the direct one.
func (rs Rules) PAC(proxy string) string {
	var b strings.Builder
	b.WriteString(pacHead)
	for i := range rs {
		r := &rs[i]
		way, applies := "proxy", true
		if r.Action == Direct {
			way = "direct"
		}
		var tests []string
		for j := range r.all {
			c := &r.all[j]
			t, exact := c.script()
			if t != "" {
				tests = append(tests, t)
			}
			if !exact {
				way = "proxy"
			}
			applies = applies && (c.kind != "net" || slices.Contains(c.words, "tcp")) // browsers ask for TCP alone
		}
		if !applies {
			continue
		}
		if len(tests) == 0 {
			tests = []string{"true"}
		}
		fmt.Fprintf(&b, "\tif (%s) return %s;\n", strings.Join(tests, " && "), way)
	}
	return fmt.Sprintf("var proxy = %s, direct = \"DIRECT\";\n", quote("PROXY "+proxy)) + b.String() + "\treturn proxy;\n}\n"
}

// pacHead finds the port and tells names from addresses. ES3: some programs' scripts are of 1999. No name is resolved: that
// would tell this box's resolver what the mesh should carry.
const pacHead = `function below(host, domain) {
	return host == domain || host.slice(-domain.length - 1) == "." + domain;
}
function within(host, net, mask) {
	return /^\d+\.\d+\.\d+\.\d+$/.test(host) && isInNet(host, net, mask);
}
function FindProxyForURL(url, host) {
	host = host.toLowerCase().replace(/\.$/, "");
	var m = /^([a-z]+):\/\/(?:[^\/@]*@)?(?:\[[^\]]*\]|[^\/:?#]*)(?::(\d+))?/i.exec(url) || [];
	var port = +(m[2] || { http: 80, ws: 80, ftp: 21 }[(m[1] || "").toLowerCase()] || 443);
`

// script returns a condition in JavaScript, empty where it is always true there; exact reports whether a browser can decide
// it.
func (c *condition) script() (test string, exact bool) {
	var any []string
	for _, w := range c.words {
		switch c.kind {
		case "suffix":
			any = append(any, "below(host, "+quote(w)+")")
		case "name":
			any = append(any, "host == "+quote(w))
		case "net":
			return "", true
		default:
			return "", false
		}
	}
	for _, p := range c.prefixes {
		if c.kind == "from" || !p.Addr().Is4() {
			return "", false
		}
		mask := ^uint32(0)
		if p.Bits() < 32 {
			mask = ^(mask >> p.Bits())
		}
		any = append(any, fmt.Sprintf("within(host, \"%s\", \"%d.%d.%d.%d\")", p.Addr(), mask>>24, mask>>16&255, mask>>8&255, mask&255))
	}
	for _, p := range c.ports {
		any = append(any, fmt.Sprintf("port >= %d && port <= %d", p[0], p[1]))
	}
	if len(any) == 0 {
		return "", true
	}
	return "(" + strings.Join(any, " || ") + ")", true
}

// quote makes a string of JavaScript. Rules come from the owner's own file: this is for mistakes, not for enemies.
func quote(s string) string { return fmt.Sprintf("%q", s) }
