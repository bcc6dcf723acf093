package applets

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/node/api"
	"skywire/supervisor/cli"
)

// Words of -n that name more than one box.
const (
	allBoxes = "@all"
	tagBoxes = "@tag:"
)

// nodesOf says which boxes a word of -n names: @all are those that serve operators, as is the key of this cluster; @tag:T are
// the members of the cluster with that tag in their certificates, there or not. Words may be joined by commas.
func nodesOf(f *applet.Flags) func(context.Context, string) ([]cli.Box, error) {
	return func(ctx context.Context, words string) (boxes []cli.Box, err error) {
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return nil, err
		}
		defer node.Close()
		var st struct {
			Cluster string `json:"cluster"`
		}
		if err := node.Call(ctx, "node.status", nil, &st); err != nil {
			return nil, err
		}
		for word := range strings.SplitSeq(words, ",") {
			found := []cli.Box{{Word: word}}
			tag, tagged := strings.CutPrefix(word, tagBoxes)
			switch {
			case tagged:
				found, err = boxesTagged(ctx, node, st.Cluster, tag)
			case word == allBoxes, st.Cluster != "" && word == st.Cluster:
				found, err = boxesServing(ctx, node)
			case strings.HasPrefix(word, "@"):
				err = applet.Usagef("-n %s: there are @all and @tag:TAG", word)
			}
			if err != nil {
				return nil, err
			}
			for _, b := range found {
				if !slices.Contains(boxes, b) {
					boxes = append(boxes, b)
				}
			}
		}
		return boxes, nil
	}
}

// boxesServing are those that serve operators.
func boxesServing(ctx context.Context, node *app.Client) (boxes []cli.Box, err error) {
	list, err := node.Services(ctx, operatorService)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if b := (cli.Box{Word: s.Key.String(), Name: s.Node}); !slices.Contains(boxes, b) {
			boxes = append(boxes, b)
		}
	}
	if len(boxes) == 0 {
		err = applet.WithCode(applet.NotFound, fmt.Errorf("no box serves operators; see settings.remote in its config.yaml"))
	}
	return boxes, err
}

// boxesTagged are the members with a tag. A box that is away is one of them: whoever changes all routers wants to hear which
// were not reached.
func boxesTagged(ctx context.Context, node *app.Client, cluster, tag string) (boxes []cli.Box, err error) {
	c, err := key.Parse(cluster)
	if err != nil {
		return nil, applet.WithCode(applet.NotFound, fmt.Errorf("@tag:%s: this node is in no cluster, where certificates would have tags", tag))
	}
	at := member.Instant{Wall: time.Now()}
	members := member.New(member.Config{Cluster: c}, at)
	for after := []byte(nil); ; {
		var page api.StatementsPage
		if err := node.Call(ctx, "member.list", api.AfterParams{After: after}, &page); err != nil {
			return nil, err
		}
		if after = page.Next; len(page.Statements) == 0 || len(after) == 0 {
			break
		}
		members.Load(at, page.Statements)
	}
	for _, k := range members.Known() {
		m := members.Member(at, k)
		if m.Rights != member.Member || !slices.Contains(m.Certificate.Tags, tag) {
			continue
		}
		name, _ := members.Name(k)
		boxes = append(boxes, cli.Box{Word: k.String(), Name: name})
	}
	if len(boxes) == 0 {
		err = applet.WithCode(applet.NotFound, fmt.Errorf("no member has the tag %q; manager members lists them, manager invite --tag gives it", tag))
	}
	return boxes, err
}
