package applets

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/socks"
)

// socksRuleAnswer is what socks rules test --json prints.
type socksRuleAnswer struct {
	Target string   `json:"target"`
	Rule   int      `json:"rule"` // counted from 1; 0: none matches
	Text   string   `json:"text"`
	Action string   `json:"action"` // "direct", "block" or "exit"
	Exits  []string `json:"exits"`  // with "exit", in order
}

const socksRulesAbout = `Says what the socks client's rules do with a connection, without making one.

    socks rules test www.example.com:443
    socks rules test 192.168.1.5:53 --udp --from 192.168.1.77 --user ann

The rules are those of config.yaml (socks: client: rules), or of --rule.`

func socksRules(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "socks rules", "test HOST:PORT [flags]", socksRulesAbout)
	c := socksConfig{Client: socksClientConfig{Server: wordList{"auto"}}}
	v := &c.Client
	f.ListVar(&v.Rules, "rule", "`RULE` as socks client takes it (repeatable)")
	f.ListVar((*[]string)(&v.Server), "server", "the exit of what no rule decides: `NODE` or auto (repeatable)")
	user := f.String("user", "", "`NAME` of the program's user")
	from := f.String("from", "", "`ADDR` of the program")
	udp := f.Bool("udp", false, "a packet, not a connection")
	words, err := f.Parse(2, 2)
	if err == nil && words[0] != "test" {
		err = applet.Usagef("want: test HOST:PORT")
	}
	if err == nil {
		err = f.Overlay(openSections, "socks", &c)
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(context.Context) error {
		q := socks.Query{User: *user, UDP: *udp}
		if *from != "" {
			if q.From, err = netip.ParseAddr(*from); err != nil {
				return applet.Usagef("--from %q is no address", *from)
			}
		}
		return socksTestRules(f, words[1], q, *v)
	})
}

func socksTestRules(f *applet.Flags, target string, q socks.Query, v socksClientConfig) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return applet.Usagef("%q: want HOST:PORT", target)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || socks.CheckTarget(host, uint16(n)) != nil {
		return applet.Usagef("%q: want HOST:PORT", target)
	}
	rules, err := socks.ParseRules(v.Rules)
	if err != nil {
		return applet.WithCode(applet.BadUsage, err)
	}
	q.Host, q.Port = host, uint16(n)
	a := socksRuleAnswer{Target: target, Action: socks.Through.String(), Exits: []string{}}
	i, r := rules.Find(q)
	if r != nil {
		a.Rule, a.Text, a.Action = i+1, r.Text, r.Action.String()
	}
	if r == nil || r.Action == socks.Through && len(r.Exits) == 0 {
		a.Exits = v.Server.words()
	} else if r.Action == socks.Through {
		a.Exits = r.Exits
	}
	e := f.Env()
	if f.JSON {
		return e.PrintJSON(a)
	}
	why := fmt.Sprintf("none of %d rules matches", len(rules))
	if r != nil {
		why = fmt.Sprintf("rule %d, %s", a.Rule, r.Text)
	}
	_, err = fmt.Fprintf(e.Stdout, "%s: %s (%s)\n", target, strings.TrimSpace(a.Action+" "+strings.Join(a.Exits, ", ")), why)
	return err
}
