//go:build web || !(mips || mipsle || mini)

package applets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/meshtest/script"
)

// maxSimFile bounds what is read of a script or a list of nodes.
const maxSimFile = 64 << 20

const simAbout = `Runs a mesh that is not there: the real control code of many nodes in one process, on virtual time, over wires that
lose, delay and break as a script says. So "what if this relay dies" is answered before it dies. Nothing of this box is
touched; the same script and --seed give the same story each time. The status is 1 if something expected was not so.

The mesh that there is, and what it means if two of its nodes die:

    skywire manager nodes --json > mesh.json
    skywire sim --mesh mesh.json --kill relay1 --kill relay2

A script, as text or in a file (- is standard input):

    node office shop relay1 relay2
    link office relay1 delay 5ms
    link shop   relay1 delay 5ms
    link office relay2 delay 9ms
    link shop   relay2 delay 9ms
    flow office shop every 10ms
    at 5s kill relay1
    at 9s expect gap office shop < 600ms
    at 9s print path office shop

`

func simApplet() applet.Applet {
	return applet.Applet{
		Name: "sim", Summary: "what if: run a mesh on virtual time",
		Usage: "sim SCRIPT | sim --mesh FILE --kill NODE…", Run: sim,
	}
}

func sim(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "sim", "[SCRIPT] [--mesh FILE] [--kill NODE]… [--seed N] [--json]", simAbout+script.Language)
	var mesh string
	var kill []string
	var seed uint64
	f.StringVar(&mesh, "mesh", "", "`FILE` that manager nodes --json wrote: the mesh to begin with")
	f.ListVar(&kill, "kill", "`NODE` that dies after 10 s, repeatable; pairs of nodes are pinged before and after")
	f.Uint64Var(&seed, "seed", 0, "`N` from which all chance comes (default: the script's, or 1)")
	words, err := f.Parse(0, 1)
	if err != nil {
		return f.Exit(err)
	}
	if len(words) == 0 && mesh == "" {
		return f.Exit(applet.Usagef("a script or --mesh FILE is needed; sim --help tells how a script is written"))
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		parts, err := simParts(e, words, mesh, kill)
		if err != nil {
			return err
		}
		s, err := script.Parse(simRead, parts...)
		if err != nil {
			return err
		}
		if f.Given("seed") {
			s.Seed = seed
		}
		return simRun(ctx, f, s)
	})
}

// simParts are what the flags say around the script.
func simParts(e *applet.Env, words []string, mesh string, kill []string) (parts []script.Source, err error) {
	if mesh != "" {
		if strings.ContainsAny(mesh, " \t\n#") {
			return nil, applet.Usagef("--mesh %q: the name of the file may hold no blank and no #", mesh)
		}
		parts = append(parts, script.Source{Name: "--mesh", Text: "mesh " + mesh})
	}
	if len(words) > 0 {
		raw, err := simScript(e, words[0])
		if err != nil {
			return nil, err
		}
		parts = append(parts, script.Source{Name: words[0], Text: string(raw)})
	}
	if len(kill) > 0 || len(words) == 0 {
		parts = append(parts, script.Source{Name: "sim", Text: "at 5s survey"})
	}
	if len(kill) > 0 {
		text := "at 14s kill " + strings.Join(kill, " ") + "\nat 30s survey\nat 45s print control"
		parts = append(parts, script.Source{Name: "--kill", Text: text})
	}
	return parts, nil
}

func simScript(e *applet.Env, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(e.Stdin, maxSimFile))
	}
	return simRead(name)
}

func simRead(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSimFile))
}

// errSim ends with status 1 what was told in full already.
var errSim = errors.New("not as expected")

func simRun(ctx context.Context, f *applet.Flags, s *script.Script) error {
	out := f.Env().Stdout
	tell := func(line string) { fmt.Fprintln(out, line) }
	if f.JSON {
		tell = nil
	}
	r, err := script.Execute(ctx, s, nil, tell)
	if err != nil {
		return err
	}
	if f.JSON {
		if err := f.Env().PrintJSON(r); err != nil {
			return err
		}
	} else {
		for _, line := range r.Summary() {
			fmt.Fprintln(out, line)
		}
	}
	if !r.OK {
		return fmt.Errorf("%w (seed %s)", errSim, strconv.FormatUint(s.Seed, 10))
	}
	return nil
}
