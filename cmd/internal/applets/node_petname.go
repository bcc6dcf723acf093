package applets

import (
	"context"
	"fmt"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/node/api"
)

// nodePetnames are the names that config.yaml gives to keys.
type nodePetnames struct {
	Petnames map[string]string `yaml:"petnames"`
}

func (c nodePetnames) keys() (map[string]key.Public, error) {
	all := map[string]key.Public{}
	for name, text := range c.Petnames {
		k, err := key.Parse(text)
		if err != nil {
			return nil, applet.Usagef("petnames: %s: %q: %v", name, text, err)
		}
		if !member.ValidName(name) {
			return nil, applet.Usagef("petnames: %q: want letters a to z, digits and inner hyphens, at most %d", name, member.MaxName)
		}
		all[name] = k
	}
	return all, nil
}

const nodePetnameAbout = `Names of your own for keys. They come before every other name, wherever a NODE is asked for and in NAME.mesh, and nobody
is told them. Those of config.yaml (node: {petnames: {alice: KEY}}) are changed there; the others are kept in the state
directory.

    node petname add alice KEY
    node petname remove alice
    node petname list`

func nodePetname(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "node petname", "add NAME NODE|remove NAME|list [--json]", nodePetnameAbout)
	words, err := f.Parse(1, 3)
	if err == nil && len(words) != map[string]int{"add": 3, "remove": 2, "list": 1}[words[0]] {
		err = applet.Usagef("want add NAME NODE, remove NAME, or list")
	}
	if err != nil {
		return f.Exit(err)
	}
	if words[0] == "list" {
		return show(ctx, f, "node.petnames", nil, func(all []api.Petname) error {
			t := e.NewTable("NAME", "KEY", "FROM")
			for _, p := range all {
				t.Row(p.Name, p.Key, map[bool]string{true: "config.yaml", false: "node petname add"}[p.Fixed])
			}
			return t.Flush()
		})
	}
	return ask(ctx, f, func(ctx context.Context, c *app.Client) error {
		p := api.PetnameParams{Name: words[1]}
		if words[0] == "add" {
			p.Key = words[2]
		}
		var r api.KeyResult
		if err := c.Call(ctx, "petname."+words[0], p, &r); err != nil {
			return err
		}
		if f.JSON {
			return e.PrintJSON(r)
		}
		if words[0] == "add" {
			fmt.Fprintln(e.Stdout, r.Key)
		}
		return nil
	})
}
