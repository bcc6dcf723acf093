//go:build web || !(mips || mipsle || mini)

package applets

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/supervisor/config"
)

func manApplet() applet.Applet {
	return applet.Applet{Name: "man", Summary: "write the manual pages of this version", Usage: "man DIR", Run: man}
}

const manAbout = `Writes manual pages into DIR/man1 and DIR/man5: a page for each applet with all its verbs and flags, made from the same text
as --help, and config.yaml(5), made from the annotated example and from what the applets read. So they fit this version.

    skywire man /usr/local/share/man
    MANPATH=/tmp/man: man viscript     (after: skywire man /tmp/man)

SOURCE_DATE_EPOCH, if set, is the date on the pages.`

// manPage is one page, ready to be written.
type manPage struct {
	name    string
	section string
	text    []byte
}

func man(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "man", "DIR", manAbout)
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	day, err := manDate(e)
	if err != nil {
		return f.Exit(err)
	}
	for _, p := range manPages(ctx, day, All(), Tools()) {
		dir := filepath.Join(words[0], "man"+p.section)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return f.Exit(err)
		}
		path := filepath.Join(dir, p.name+"."+p.section)
		if err := os.WriteFile(path, p.text, 0o644); err != nil {
			return f.Exit(err)
		}
		fmt.Fprintln(e.Stdout, path)
	}
	return applet.OK
}

// manDate is the date on the pages.
func manDate(e *applet.Env) (string, error) {
	at := time.Now()
	if s := e.Getenv("SOURCE_DATE_EPOCH"); s != "" {
		var unix int64
		if _, err := fmt.Sscan(s, &unix); err != nil {
			return "", applet.Usagef("SOURCE_DATE_EPOCH=%s is no number of seconds", s)
		}
		at = time.Unix(unix, 0)
	}
	return at.UTC().Format(time.DateOnly), nil
}

// manPages makes all pages. The applets are asked for their help as on a box where nobody has set anything.
func manPages(ctx context.Context, day string, all, tools []applet.Applet) []manPage {
	m := &manual{day: day, all: all, tools: tools}
	pages := []manPage{m.front()}
	for _, a := range slices.Concat(all, tools) {
		pages = append(pages, m.applet(ctx, a))
	}
	return append(pages, m.config(ctx))
}

// manual is what the pages share.
type manual struct {
	day        string
	all, tools []applet.Applet
}

// pageOf is the name of an applet's page, that of its link.
func pageOf(a applet.Applet) string {
	if a.Name == viscriptName {
		return a.Name
	}
	return "skywire-" + a.Name
}

// ask runs words of an applet with --help.
func (m *manual) ask(ctx context.Context, a applet.Applet, words ...string) helpText {
	var out bytes.Buffer
	code := a.Run(ctx, &applet.Env{
		Args: slices.Concat(words, []string{"--help"}), Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard,
		Environ: []string{"SKYWIRE_CONFIG=/etc/skywire/config.yaml", "SKYWIRE_STATE=/var/lib/skywire", "SKYWIRE_RUN=/run/skywire"},
	})
	if code != applet.OK {
		return helpText{}
	}
	return parseHelp(out.String())
}

func (m *manual) front() manPage {
	r := m.begin("skywire", "1", "an encrypted mesh of your own boxes, in one binary")
	r.section("SYNOPSIS")
	r.usage("skywire APPLET [ARGS…]")
	r.usage("skywire install-links DIR [--bare]")
	r.usage("skywire --list | --version | --help")
	r.section("DESCRIPTION")
	r.paragraph("Skywire turns routers and single-board computers into an encrypted, label-switched mesh. One binary is all of it: " +
		"its first argument says which applet runs, or the name by which it is called (skywire-node, viscript, …; skywire install-links DIR makes the links).")
	for _, part := range []struct {
		title string
		list  []applet.Applet
	}{{"APPLETS", m.all}, {"OTHER WORDS", m.tools}} {
		r.section(part.title)
		for _, a := range part.list {
			r.item(bold(a.Name), a.Summary+"; see "+pageOf(a)+"(1)")
		}
	}
	m.surroundings(r)
	r.seeAlso(m, "skywire")
	return manPage{"skywire", "1", r.Bytes()}
}

// surroundings are what holds for every applet.
func (m *manual) surroundings(r *roff) {
	r.section("EXIT STATUS")
	for _, s := range []string{
		"0|done", "1|failed", "2|the command line was wrong", "3|not running, or not reachable", "4|no such app, node or id", "5|refused, by policy or scope",
	} {
		code, text, _ := strings.Cut(s, "|")
		r.item(bold(code), text)
	}
	r.section("ENVIRONMENT")
	r.item(bold("SKYWIRE_CONFIG")+", "+bold("SKYWIRE_STATE")+", "+bold("SKYWIRE_RUN"), "what --config, --state and --run are when they are not given")
	r.item(bold("SKYWIRE_LOG_LEVEL")+", "+bold("SKYWIRE_LOG_JSON"), "what --log-level is; 1: as --log-json")
	r.item(bold("NO_COLOR"), "if set, nothing is coloured")
	r.section("FILES")
	for _, s := range []string{
		"/etc/skywire/config.yaml|the one configuration of the box, see config.yaml(5)", "/var/lib/skywire|keys and databases (OpenWrt: /etc/skywire)",
		"/run/skywire|sockets, pid files, log pipes",
	} {
		path, text, _ := strings.Cut(s, "|")
		r.item(italic(path), text)
	}
}

// applet makes the page of an applet: its own help, then that of each verb.
func (m *manual) applet(ctx context.Context, a applet.Applet) manPage {
	r := m.begin(pageOf(a), "1", a.Summary)
	own := m.ask(ctx, a)
	r.section("SYNOPSIS")
	for line := range strings.SplitSeq(a.Usage, "\n") {
		if a.Name != viscriptName {
			line = "skywire " + line
		}
		r.usage(line)
	}
	r.section("DESCRIPTION")
	r.prose(own.about)
	r.lists(own, false)
	common := own
	if verbs := m.verbs(ctx, a, own); len(verbs) > 0 {
		r.section("COMMANDS")
		for _, v := range verbs {
			r.subsection(strings.Join(v.words, " "))
			r.usage(v.help.usage)
			r.prose(v.help.about)
			r.lists(v.help, false)
			if len(common.common) == 0 {
				common = v.help
			}
		}
	}
	if len(common.common) > 0 {
		r.section("COMMON OPTIONS")
		r.lists(helpText{common: common.common}, true)
	}
	r.seeAlso(m, pageOf(a))
	return manPage{pageOf(a), "1", r.Bytes()}
}

// manVerb is one verb, or a word below one.
type manVerb struct {
	words []string // viscript ps, manager cluster create
	help  helpText
}

// verbs asks all verbs of an applet; one that has verbs itself is followed by these.
func (m *manual) verbs(ctx context.Context, a applet.Applet, own helpText) (all []manVerb) {
	for _, v := range synopsisVerbs(a) {
		h := m.ask(ctx, a, v)
		if h.usage == own.usage && h.about == own.about { // a word that the applet takes, no verb
			continue
		}
		all = append(all, manVerb{[]string{a.Name, v}, h})
		for _, below := range h.verbs {
			words := strings.Fields(below.head)
			if len(words) < 3 || words[0] != a.Name || words[1] != v {
				continue
			}
			if h := m.ask(ctx, a, v, words[2]); h.usage != "" {
				all = append(all, manVerb{words[:3], h})
			}
		}
	}
	return all
}

// config makes config.yaml(5).
func (m *manual) config(ctx context.Context) manPage {
	r := m.begin("config.yaml", "5", "the configuration of a box with skywire")
	r.section("DESCRIPTION")
	r.paragraph("One file in YAML holds all there is to configure on a box: settings and apps, which viscript reads, and a section for each applet. " +
		"Flags override it. A key that nobody knows is an error with its line. viscript config check looks for mistakes, viscript reload --dry-run says what " +
		"would change, viscript config schema prints a JSON schema for editors.")
	r.paragraph("Durations are 10s, 1m30s or a number of seconds; sizes 64MiB or a number of bytes.")
	keys := config.Annotated()
	for _, part := range []struct{ title, section, under string }{
		{"SETTINGS", "settings", "These stand under settings:"}, {"APPS", "apps", "These stand under apps: in the entry of an app, which has its name."},
	} {
		r.section(part.title)
		r.paragraph(part.under)
		for _, k := range keys {
			if k.Section == part.section {
				r.item(keyHead(k.Path, k.Value), k.Text)
			}
		}
	}
	known := sections()
	for _, a := range m.all {
		into := known[a.Name]
		if into == nil {
			continue
		}
		r.section(strings.ToUpper(a.Name))
		r.paragraph("These stand under " + a.Name + ": and mean what the flag of the same name does; see " + pageOf(a) + "(1).")
		flags := map[string]string{}
		for _, v := range m.verbs(ctx, a, helpText{}) {
			for _, f := range v.help.flags {
				name, _, _ := strings.Cut(strings.TrimLeft(f.head, "-"), " ")
				if flags[name] == "" {
					flags[name] = f.text
				}
			}
		}
		for _, k := range config.KeysOf(into) {
			last := k.Path[strings.LastIndexByte(k.Path, '.')+1:]
			text := ""
			for _, name := range []string{strings.ReplaceAll(k.Path, ".", "-"), last, strings.TrimSuffix(last, "s")} {
				if text == "" {
					text = flags[strings.ReplaceAll(name, "_", "-")]
				}
			}
			r.item(keyHead(k.Path, k.Value), text)
		}
	}
	r.section("FILES")
	r.item(italic("/etc/skywire/config.yaml"), "of root; the file of a user is config.yaml in $XDG_CONFIG_HOME/skywire")
	r.seeAlso(m, "config.yaml")
	return manPage{"config.yaml", "5", r.Bytes()}
}

func keyHead(path, value string) string {
	if value == "" {
		return bold(path)
	}
	return bold(path) + ": " + italic(value)
}
