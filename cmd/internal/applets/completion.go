//go:build !mini

package applets

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"skywire/cmd/internal/applet"
)

func completionApplet() applet.Applet {
	return applet.Applet{
		Name: "completion", Summary: "print completions for a shell",
		Usage: "completion bash|zsh|fish", Run: completion,
	}
}

const completionAbout = `Prints what makes a shell complete applets, verbs and flags. It is made from the binary's own table and help, so it fits
this version.

    bash:  skywire completion bash > /usr/share/bash-completion/completions/skywire
    zsh:   skywire completion zsh > "${fpath[1]}/_skywire"
    fish:  skywire completion fish > ~/.config/fish/completions/skywire.fish

For this shell alone: source <(skywire completion bash)`

func completion(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "completion", "bash|zsh|fish", completionAbout)
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	print := map[string]func(io.Writer, []completed){"bash": completeBash, "zsh": completeZsh, "fish": completeFish}[words[0]]
	if print == nil {
		return f.Exit(applet.Usagef("no completions for %q; there are: bash zsh fish", words[0]))
	}
	print(e.Stdout, completionTable(ctx, All(), Tools()))
	return applet.OK
}

// completed is an applet as a shell sees it.
type completed struct {
	name    string
	summary string
	linked  bool // has link names of its own
	verbs   []completedVerb
}

// completedVerb is a word after the applet and its flags. The verb "" holds the flags of the applet itself.
type completedVerb struct {
	name  string
	flags []completedFlag
}

type completedFlag struct {
	name  string // with its dashes
	value string // "FILE", "DIR", … ; empty: takes none
	text  string
}

// completionTable reads the tables: the verbs from the synopses, the flags from the verbs' own help.
func completionTable(ctx context.Context, all, tools []applet.Applet) []completed {
	var table []completed
	for i, a := range slices.Concat(all, tools) {
		c := completed{name: a.Name, summary: a.Summary, linked: i < len(all)}
		c.verbs = append(c.verbs, completedVerb{flags: helpFlags(ctx, a)})
		for _, v := range synopsisVerbs(a) {
			c.verbs = append(c.verbs, completedVerb{name: v, flags: helpFlags(ctx, a, v)})
		}
		table = append(table, c)
	}
	return table
}

// synopsisVerbs are the words that may follow the applet's name: of "node ping NODE" ping, of "completion bash|zsh" both.
func synopsisVerbs(a applet.Applet) []string {
	var verbs []string
	for _, line := range strings.Split(a.Usage, "\n") {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != a.Name {
			continue
		}
		for _, w := range strings.Split(f[1], "|") {
			if isWord(w) && !slices.Contains(verbs, w) {
				verbs = append(verbs, w)
			}
		}
	}
	return verbs
}

// isWord tells a verb from a placeholder, a flag and a bracket. Only such words reach the scripts, so nothing in them
// needs quoting.
func isWord(s string) bool {
	for i, r := range s {
		if !(r >= 'a' && r <= 'z' || i > 0 && (r >= '0' && r <= '9' || r == '-' || r == '_')) {
			return false
		}
	}
	return s != ""
}

// helpFlags asks a verb for its help and reads the lines "  --name VALUE  text".
func helpFlags(ctx context.Context, a applet.Applet, words ...string) []completedFlag {
	var out bytes.Buffer
	e := &applet.Env{
		Args: append(words, "--help"), Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard,
	}
	if a.Run(ctx, e) != applet.OK {
		return nil
	}
	var flags []completedFlag
	for _, line := range strings.Split(out.String(), "\n") {
		if !strings.HasPrefix(line, "  -") {
			continue
		}
		head, text, _ := strings.Cut(strings.TrimSpace(line), "  ")
		name, value, _ := strings.Cut(head, " ")
		if isWord(strings.TrimLeft(name, "-")) {
			flags = append(flags, completedFlag{name: name, value: value, text: strings.TrimSpace(text)})
		}
	}
	return flags
}

func flagNames(flags []completedFlag) string {
	names := make([]string, 0, len(flags)+1)
	for _, f := range flags {
		names = append(names, f.name)
	}
	return strings.Join(append(names, "--help"), " ")
}

func verbNames(c completed) string {
	var names []string
	for _, v := range c.verbs {
		if v.name != "" {
			names = append(names, v.name)
		}
	}
	return strings.Join(names, " ")
}

// linkNames are the commands that the script is for: the binary and its links.
func linkNames(table []completed) []string {
	names := []string{"skywire"}
	for _, c := range table {
		if !c.linked {
			continue
		}
		if c.name == "viscript" {
			names = append(names, c.name) // the one link without the prefix
		} else {
			names = append(names, "skywire-"+c.name)
		}
	}
	return names
}

// valued collects the flags whose value is of one kind, as a shell pattern.
func valued(table []completed, kinds ...string) string {
	var names []string
	for _, c := range table {
		for _, v := range c.verbs {
			for _, f := range v.flags {
				if slices.Contains(kinds, f.value) && !slices.Contains(names, f.name) {
					names = append(names, f.name)
				}
			}
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "--" // matches no flag
	}
	return strings.Join(names, "|")
}

const headWords = "install-links help --list --version --help"

// completeBash prints a function that needs nothing of the bash-completion package.
func completeBash(w io.Writer, table []completed) {
	var names []string
	for _, c := range table {
		names = append(names, c.name)
	}
	fmt.Fprintf(w, `# bash completion for skywire, made by: skywire completion bash
_skywire() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} name=${COMP_WORDS[0]##*/} applet= verb= i=1 w verbs= flags=
	COMPREPLY=()
	case $name in
	skywire) applet=${COMP_WORDS[1]} i=2 ;;
	*) applet=${name#skywire-} ;;
	esac
	if [[ $name == skywire && $COMP_CWORD -eq 1 ]]; then
		COMPREPLY=($(compgen -W "%s %s" -- "$cur"))
		return
	fi
	case $prev in
	%s) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	%s) COMPREPLY=($(compgen -d -- "$cur")); return ;;
	esac
	case $applet in
`, strings.Join(names, " "), headWords, valued(table, "FILE"), valued(table, "DIR"))
	for _, c := range table {
		fmt.Fprintf(w, "\t%s) verbs=\"%s\" ;;\n", c.name, verbNames(c))
	}
	fmt.Fprint(w, `	install-links) COMPREPLY=($(compgen -d -W "--bare" -- "$cur")); return ;;
	esac
	for ((; i < COMP_CWORD; i++)); do
		for w in $verbs; do
			[[ ${COMP_WORDS[i]} == "$w" ]] && verb=$w && break 2
		done
	done
	case $applet/$verb in
`)
	for _, c := range table {
		for _, v := range c.verbs {
			fmt.Fprintf(w, "\t%s/%s) flags=\"%s\" ;;\n", c.name, v.name, flagNames(v.flags))
		}
	}
	fmt.Fprintf(w, `	esac
	[[ -n $verb ]] && verbs=
	if [[ $cur == -* ]]; then verbs=; elif [[ -n $verbs ]]; then flags=; fi
	COMPREPLY=($(compgen -W "$verbs $flags" -- "$cur"))
}
complete -o default -F _skywire %s
`, strings.Join(linkNames(table), " "))
}

// zshText quotes a text for a single-quoted "name:text" of _describe.
func zshText(s string) string {
	return strings.NewReplacer("'", `'\''`, ":", `\:`, "\\", `\\`).Replace(s)
}

// completeZsh prints a file for fpath; it also works when it is sourced.
func completeZsh(w io.Writer, table []completed) {
	fmt.Fprintf(w, `#compdef %s
# zsh completion for skywire, made by: skywire completion zsh
_skywire() {
	local name=${words[1]:t} applet= verb= i=2 w
	local -a list verbs
	if [[ $name == skywire ]]; then
		if (( CURRENT == 2 )); then
			list=(
`, strings.Join(linkNames(table), " "))
	for _, c := range table {
		fmt.Fprintf(w, "\t\t\t\t'%s:%s'\n", c.name, zshText(c.summary))
	}
	fmt.Fprintf(w, `				'install-links:link the names of the applets to this binary'
			)
			_describe applet list
			compadd -- --list --version --help
			return
		fi
		applet=${words[2]} i=3
	else
		applet=${name#skywire-}
	fi
	case ${words[CURRENT-1]} in
	%s) _files; return ;;
	%s) _files -/; return ;;
	esac
	case $applet in
`, valued(table, "FILE"), valued(table, "DIR"))
	for _, c := range table {
		fmt.Fprintf(w, "\t%s) verbs=(%s) ;;\n", c.name, verbNames(c))
	}
	fmt.Fprint(w, `	install-links) compadd -- --bare; _files -/; return ;;
	esac
	for w in ${words[i,CURRENT-1]}; do
		if (( ${verbs[(Ie)$w]} )); then verb=$w; break; fi
	done
	case $applet/$verb in
`)
	for _, c := range table {
		for _, v := range c.verbs {
			fmt.Fprintf(w, "\t%s/%s) list=(\n", c.name, v.name)
			for _, f := range v.flags {
				fmt.Fprintf(w, "\t\t'%s:%s'\n", f.name, zshText(f.text))
			}
			fmt.Fprint(w, "\t) ;;\n")
		}
	}
	fmt.Fprint(w, `	esac
	if [[ -z $verb && ${#verbs} -gt 0 ]]; then compadd -- $verbs; fi
	if [[ ${words[CURRENT]} == -* ]]; then _describe -o flag list; compadd -- --help; elif [[ -n $verb ]]; then _files; fi
}
if [[ ${funcstack[1]} == _skywire ]]; then
	_skywire "$@"
else
	compdef _skywire `+strings.Join(linkNames(table), " ")+`
fi
`)
}

func fishText(s string) string {
	return strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s)
}

// completeFish prints one line for each word.
func completeFish(w io.Writer, table []completed) {
	fmt.Fprint(w, "# fish completion for skywire, made by: skywire completion fish\n")
	var names []string
	for _, c := range table {
		names = append(names, c.name)
	}
	all := strings.Join(append(names, "install-links"), " ")
	none := fmt.Sprintf("not __fish_seen_subcommand_from %s", all)
	for _, c := range table {
		fmt.Fprintf(w, "complete -c skywire -f -n '%s' -a %s -d '%s'\n", none, c.name, fishText(c.summary))
	}
	fmt.Fprintf(w, "complete -c skywire -f -n '%s' -a install-links -d 'link the names of the applets to this binary'\n", none)
	fmt.Fprintf(w, "complete -c skywire -n '%s' -l version\ncomplete -c skywire -n '%s' -l list\n", none, none)
	for _, c := range table {
		fishApplet(w, "skywire", "__fish_seen_subcommand_from "+c.name, c)
		if c.linked {
			fishApplet(w, linkNames([]completed{c})[1], "true", c)
		}
	}
}

// fishApplet prints the verbs and flags of c under command, where the condition in holds.
func fishApplet(w io.Writer, command, in string, c completed) {
	verbs := verbNames(c)
	for _, v := range c.verbs {
		when := in
		switch {
		case v.name != "":
			fmt.Fprintf(w, "complete -c %s -f -n '%s; and not __fish_seen_subcommand_from %s' -a %s\n", command, in, verbs, v.name)
			when += "; and __fish_seen_subcommand_from " + v.name
		case verbs != "":
			when += "; and not __fish_seen_subcommand_from " + verbs
		}
		for _, f := range v.flags {
			kind := "-l " + strings.TrimLeft(f.name, "-")
			if !strings.HasPrefix(f.name, "--") {
				kind = "-s " + strings.TrimLeft(f.name, "-")
			}
			if f.value != "" {
				kind += " -r" // wants a value
			}
			fmt.Fprintf(w, "complete -c %s -n '%s' %s -d '%s'\n", command, when, kind, fishText(f.text))
		}
	}
}
