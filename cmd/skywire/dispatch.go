package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"skywire/cmd/internal/applet"
)

// legacy are the program names of 2017 and the words they stand for now; config.yaml files still say them.
func legacy() map[string][]string {
	return map[string][]string{
		"meshnet-run-node":         {"node"},
		"meshnet-run-socks-client": {"socks", "client"},
		"meshnet-run-socks-server": {"socks", "server"},
		"meshnet-run-vpn-client":   {"vpn", "client"},
		"meshnet-run-vpn-server":   {"vpn", "server"},
		"meshnet-run-apptracker":   {"apptracker"},
	}
}

// dispatch runs the applet that argv0 names, else the one that the first argument names, else a word of its own.
func dispatch(ctx context.Context, argv0 string, e *applet.Env, all, tools []applet.Applet) int {
	name := baseName(argv0)
	if words, ok := legacy()[name]; ok {
		if name == "meshnet-run-vpn-server" && len(e.Args) == 3 {
			// The config.yaml of 2017 names the server's program for the client too; only a client has a port.
			words = []string{"vpn", "client"}
		}
		return dispatch(ctx, "skywire", e.With(slices.Concat(words, e.Args)), all, tools)
	}
	if a := find(all, strings.TrimPrefix(name, "skywire-")); a != nil {
		return a.Run(ctx, e)
	}
	if name == luciName {
		return luci(ctx, e, func(ctx context.Context, e *applet.Env) int { return dispatch(ctx, "skywire", e, all, tools) })
	}
	if len(e.Args) == 0 {
		help(e.Stderr, all, tools)
		return applet.BadUsage
	}
	rest := e.With(e.Args[1:])
	switch word := e.Args[0]; word {
	case "--help", "-h", "-help":
		help(e.Stdout, all, tools)
		return applet.OK
	case "help":
		if len(e.Args) == 1 {
			help(e.Stdout, all, tools)
			return applet.OK
		}
		return dispatch(ctx, "skywire", e.With([]string{e.Args[1], "--help"}), all, tools)
	case "--version", "-version", "version":
		return printVersion(rest)
	case "--list":
		for _, a := range all {
			fmt.Fprintln(e.Stdout, a.Name)
		}
		return applet.OK
	case "install-links":
		return installLinks(rest, all)
	default:
		if a := find(slices.Concat(all, tools), strings.TrimPrefix(word, "skywire-")); a != nil {
			return a.Run(ctx, rest)
		}
		return unknown(e, word, all, tools)
	}
}

// baseName strips what is not the applet's name from argv[0]: the folder, a login shell's dash, Windows' suffix.
func baseName(argv0 string) string {
	name := strings.TrimSuffix(filepath.Base(argv0), ".exe")
	return strings.TrimPrefix(name, "-")
}

func find(table []applet.Applet, name string) *applet.Applet {
	if i := slices.IndexFunc(table, func(a applet.Applet) bool { return a.Name == name }); i >= 0 {
		return &table[i]
	}
	return nil
}

func unknown(e *applet.Env, word string, all, tools []applet.Applet) int {
	names := []string{"install-links", "--version", "--list", "--help"}
	for _, a := range slices.Concat(all, tools) {
		names = append(names, a.Name)
	}
	if s := applet.Suggest(word, names); s != "" {
		e.Talk("skywire", "unknown applet %q, did you mean %q?", word, s)
	} else {
		e.Talk("skywire", "unknown applet %q", word)
	}
	fmt.Fprintln(e.Stderr, "see: skywire --help")
	return applet.BadUsage
}

func help(w io.Writer, all, tools []applet.Applet) {
	fmt.Fprint(w, "skywire: an encrypted mesh of your own boxes, in one binary\n\nusage: skywire APPLET [ARGS…]\n\n")
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, a := range slices.Concat(all, tools) {
		fmt.Fprintf(t, "  %s\t%s\n", a.Name, a.Summary)
	}
	fmt.Fprintf(t, "  install-links DIR [--bare]\tlink the applets' names to this binary\n")
	fmt.Fprintf(t, "  --list, --version, --help\n")
	t.Flush()
	fmt.Fprint(w, "\nAn applet also runs under its own name: skywire-node, viscript, … ; skywire APPLET --help says more.\n")
}
