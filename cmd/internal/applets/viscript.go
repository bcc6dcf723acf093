package applets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"skywire/cmd/internal/applet"
	_ "skywire/signal/auto" // the binary's applets answer viscript's ping, ru and shutdown
	"skywire/supervisor"
	"skywire/supervisor/cli"
	"skywire/supervisor/config"
)

const (
	viscriptName  = "viscript"
	viscriptAbout = `Without words it is an interactive shell with history and completion; from a file or pipe it runs each line and exits
with the status of the last that failed. ID is 3, a name, or name#3. An app's user arguments replace its default_args.`
	viscriptRunAbout = `The daemon: starts the apps of config.yaml that have autostart, and serves the verbs on RUN/viscript.sock. It stops all
apps when it ends by SIGINT or SIGTERM. When it is killed they go on, and the next run adopts them: ids, ps, sd and
all they have printed stay; their exit status is unknown then. viscript upgrade replaces it without a gap. SIGHUP does what
viscript reload does.`
)

func viscriptApplet() applet.Applet {
	usage := []string{"viscript", "viscript run [--headless]"}
	for _, v := range cli.Verbs() {
		if !v.InShell() {
			usage = append(usage, strings.TrimSpace("viscript "+v.Name+" "+v.Args))
		}
	}
	return applet.Applet{
		Name: viscriptName, Summary: "starts, watches, measures and stops the apps of this box",
		Usage: strings.Join(usage, "\n"), Run: runViscript,
	}
}

func runViscript(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, viscriptName, "[VERB …]", viscriptAbout)
	other := f.String("n", "", "do it on `NODE|@tag:T|CLUSTER|@all` instead of this box; several by commas")
	if len(e.Args) > 0 && (e.Args[0] == "--help" || e.Args[0] == "-h" || e.Args[0] == "-help") {
		return viscriptHelp(e.Stdout)
	}
	words, err := f.ParseLeading(0, -1)
	if err != nil {
		return f.Exit(err)
	}
	if *other != "" {
		if len(words) > 0 && words[0] == "run" {
			return f.Exit(applet.Usagef("run starts the daemon of this box: leave -n away"))
		}
		words = slices.Concat([]string{"-n", *other}, words)
	}
	if len(words) > 0 && words[0] == "run" {
		lead := e.Args[:len(e.Args)-len(words)]
		return viscriptRun(ctx, e.With(slices.Concat(lead, words[1:])))
	}
	var paint func(string) string
	if e.Colours() {
		paint = applet.Paint
	}
	return cli.Main(ctx, cli.Config{
		Paint: paint,
		Dial:  dialOperator(f), Nodes: nodesOf(f),
		RunDir: f.Run, File: f.Config, Sections: sectionNames(), Check: checkSections, Schema: func() any { return config.Schema(sections()) }, JSON: f.JSON,
		Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr,
	}, words)
}

func viscriptHelp(w io.Writer) int {
	fmt.Fprintf(w, "usage: viscript [VERB …]\n\n%s\n\n", viscriptAbout)
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "  run [--headless]\tthe daemon")
	cli.PrintVerbs(t, false)
	fmt.Fprint(w, "\nviscript VERB --help says more. Common flags: --config FILE, --state DIR, --run DIR, --json.\n"+
		"-n NODE|@tag:T|CLUSTER|@all before a verb does it on other boxes, as far as their settings.remote let this box's key.\n")
	return applet.OK
}

// viscriptRun is the daemon.
func viscriptRun(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "viscript run", "[--headless]", viscriptRunAbout)
	headless := f.Bool("headless", false, "without the web page, as settings.runHeadless")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	c := supervisor.Config{
		File: f.Config, FileNamed: f.Given("config") || e.Getenv("SKYWIRE_CONFIG") != "", StateDir: f.State, RunDir: f.Run,
		Environ: e.Environ, Log: f.Logger(), Sections: sectionNames(), Check: checkSections, SectionOf: sectionOf,
		Inproc: inprocApps(e.Processors), Answers: answers, Subreaper: true, Version: applet.Version().Version,
	}
	if self, err := os.Executable(); err == nil {
		c.Self = self
		c.Exec = replaceSelf(self)
		c.LinkDirs = linkDirs(self)
	}
	ended, stop := childEnded()
	defer stop()
	c.ChildEnded = ended
	hup, stopHUP := reloadAsked()
	defer stopHUP()
	c.ReloadAsked = hup
	c.Remote = serveOperators(f.Run, c.Log)
	c.Page = webPage(f, *headless, c.Log)
	c.Mesh = meshTraffic(f.Run)
	s, err := supervisor.New(c)
	if err != nil {
		return f.Exit(err)
	}
	if file, err := config.Load(f.Config); err == nil {
		if err := checkSections(file); err != nil { // the other apps may run all the same
			e.Talk(viscriptName, "%v; the app will not start", err)
		}
	}
	e.Talk(viscriptName, "control socket %s", supervisor.ControlSocket(f.Run))
	return f.Duty(ctx, s.Run)
}

// linkDirs are where links to this binary may lie: beside it, and where it was called from.
func linkDirs(self string) []string {
	dirs := []string{filepath.Dir(self)}
	if real, err := filepath.EvalSymlinks(self); err == nil && filepath.Dir(real) != dirs[0] {
		dirs = append(dirs, filepath.Dir(real))
	}
	return dirs
}

// sectionNames are the sections of config.yaml that applets own.
func sectionNames() []string {
	// of later versions, and what a small build has not: a file that has them is no error
	names := []string{"messenger", "meter", "manager", "apptracker", updateName}
	for _, a := range All() {
		names = append(names, a.Name)
	}
	return names
}

// sections are those of config.yaml that applets decode, with what into.
func sections() map[string]any {
	all := serverSections()
	all[nodeName], all["vpn"], all["socks"], all[updateName] = &nodeConfig{}, &vpnConfig{}, &socksConfig{}, &updateConfig{}
	return all
}

// checkSections decodes the sections of config.yaml as the applets will, each of which reads its own only when it starts.
func checkSections(f *config.File) error {
	var errs []error
	for name, into := range sections() {
		errs = append(errs, f.Section(name, into))
	}
	return errors.Join(errs...)
}

// sectionOf is the section of config.yaml that the applet of an app reads when it starts; "" if the app is none.
func sectionOf(a *config.App) string {
	word := strings.TrimPrefix(filepath.Base(a.Path), "skywire-")
	if words := words2017()[word]; words != nil {
		word = words[0]
	}
	if word == "skywire" && len(a.DefaultArgs) > 0 {
		word = a.DefaultArgs[0]
	}
	if word != viscriptName && answers(word) {
		return word
	}
	return ""
}

// words2017 are the program names of 2017, which config.yaml files still say, and the words they stand for.
func words2017() map[string][]string {
	return map[string][]string{
		"meshnet-run-node":         {"node"},
		"meshnet-run-socks-client": {"socks", "client"},
		"meshnet-run-socks-server": {"socks", "server"},
		"meshnet-run-vpn-client":   {"vpn", "client"},
		"meshnet-run-vpn-server":   {"vpn", "server"},
		"meshnet-run-apptracker":   {"apptracker"},
	}
}

// answers reports whether this binary answers to name as argv[0].
func answers(name string) bool {
	if words2017()[name] != nil || name == "skywire" {
		return true
	}
	return slices.ContainsFunc(All(), func(a applet.Applet) bool { return a.Name == strings.TrimPrefix(name, "skywire-") })
}

// inprocApps are the applets as functions, by every name that config.yaml may say; viscript itself is none of them.
// processors is applet.Env.Processors: a node in this process may set it, as one in its own would.
func inprocApps(processors func(int) int) map[string]supervisor.Inproc {
	apps := map[string]supervisor.Inproc{}
	for _, a := range All() {
		if a.Name == viscriptName {
			continue
		}
		apps[a.Name] = inproc(a, nil, processors)
		apps["skywire-"+a.Name] = inproc(a, nil, processors)
		for name, words := range words2017() {
			if words[0] == a.Name {
				apps[name] = inproc(a, words[1:], processors)
			}
		}
	}
	return apps
}

func inproc(a applet.Applet, lead []string, processors func(int) int) supervisor.Inproc {
	return func(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
		words := lead
		if a.Name == "vpn" && slices.Equal(lead, []string{"server"}) && len(args) == 3 {
			// The file of 2017 names the server's program for the client too; only a client has a port.
			words = []string{"client"}
		}
		return a.Run(ctx, &applet.Env{
			Args: slices.Concat(words, args), Environ: environ, Stdin: stdin, Stdout: stdout, Stderr: stderr,
			Processors: processors,
		})
	}
}
