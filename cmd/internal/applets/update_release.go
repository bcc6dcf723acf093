//go:build web || !(mips || mipsle || mini)

package applets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/packaging/update"
)

// releaseVerbs make releases and give them away.
func releaseVerbs() []applet.Verb {
	return []applet.Verb{
		{Name: "keygen", Args: "FILE", Summary: "make a release key, print its public half", Run: updateKeygen},
		{Name: "sign", Args: "DIR --key-file FILE --version V [--min-version V]", Summary: "make the manifest of the programs in DIR and sign it", Run: updateSign},
		{Name: "serve", Args: "DIR [--allow WORD]…", Summary: "give the release in DIR to nodes of the mesh", Run: updateServe},
	}
}

func updateKeygen(_ context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "update keygen", "FILE", "Makes a release key in FILE, or reads the one there, and prints its public half, which goes into update.keys of all boxes.\nKeep FILE off-line: whoever has it can put any program on those boxes.")
	words, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	k, _, err := key.LoadOrCreate(words[0])
	if err != nil {
		return f.Exit(err)
	}
	if f.JSON {
		return f.Exit(e.PrintJSON(map[string]string{"key": k.Public().String()}))
	}
	fmt.Fprintln(e.Stdout, k.Public())
	return applet.OK
}

const updateSignAbout = `Makes DIR/manifest.json of the files skywire-PLATFORM in DIR (linux-arm64, linux-arm-7, linux-mipsle-softfloat-mini, …) and
DIR/manifest.json.sig. With --add, the manifest stays as it is and a further key signs it: a box believes any one of its keys.

What is signed is Ed25519 over "skywire release 1", nine zero bytes, and the bytes of manifest.json; packaging/README.md shows how
to check it without skywire.`

func updateSign(_ context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "update sign", "DIR --key-file FILE --version V [--min-version V]", updateSignAbout)
	file := f.String("key-file", "", "`FILE` of the release key, of: update keygen")
	version := f.String("version", "", "`V` that the programs say they are")
	least := f.String("min-version", "", "the oldest `V` that can change to this one at once")
	add := f.Bool("add", false, "sign the manifest that is there, with one more key")
	words, err := f.Parse(1, 1)
	if err == nil && *file == "" {
		err = applet.Usagef("--key-file is missing")
	}
	if err == nil && (*version == "") != *add {
		err = applet.Usagef("say either --version V or --add")
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Exit(signRelease(e, words[0], *file, *version, *least, *add))
}

func signRelease(e *applet.Env, dir, file, version, least string, add bool) error {
	k, err := key.Load(file)
	if err != nil {
		return err
	}
	path, sigPath := filepath.Join(dir, update.ManifestName), filepath.Join(dir, update.SignatureName)
	var raw, sigs []byte
	if add {
		if raw, err = os.ReadFile(path); err == nil {
			sigs, err = os.ReadFile(sigPath)
		}
		if err == nil {
			_, err = update.ParseManifest(raw)
		}
	} else {
		m := update.Manifest{Version: version, MinVersion: least, Time: releaseTime(e)}
		if m.Files, err = update.Folder(dir).Files("skywire-"); err == nil && len(m.Files) == 0 {
			err = applet.WithCode(applet.NotFound, fmt.Errorf("%s has no file skywire-PLATFORM", dir))
		}
		if err == nil {
			raw, err = m.Append(nil)
		}
	}
	if err != nil {
		return err
	}
	sigs = append(sigs, update.Sign(k, raw)...)
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(sigPath, sigs, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(e.Stdout, k.Public())
	return nil
}

// releaseTime is now, or what SOURCE_DATE_EPOCH says, so that the same commit gives the same manifest.
func releaseTime(e *applet.Env) time.Time {
	if s, err := strconv.ParseInt(e.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		return time.Unix(s, 0).UTC()
	}
	return time.Now().UTC().Truncate(time.Second)
}

func updateServe(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "update serve", "DIR [--allow WORD]…",
		"Gives the signed release in DIR to other nodes, which say: update apply --from mesh:NODE. A newer release can be put into DIR\nwhile it runs. Without --allow, members of the cluster may take it, and in an open mesh nobody.")
	var allow []string
	f.ListVar(&allow, "allow", "who may: KEY, petname, @TAG or any (repeatable)")
	words, err := f.Parse(1, 1)
	if err == nil {
		_, err = os.Stat(filepath.Join(words[0], update.SignatureName))
		if err != nil {
			err = fmt.Errorf("%s is no signed release: %w; see update sign", words[0], err)
		}
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return err
		}
		defer node.Close()
		list, err := allowWords(ctx, node, allow)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			e.Talk(updateName, "nobody may take it: the mesh is open and no key is allowed. Add --allow KEY or --allow any")
		}
		return besideNode(ctx, f, node, func(ctx context.Context) error {
			err := update.Serve(ctx, node, update.Folder(words[0]), list, f.Logger())
			if errors.Is(err, net.ErrClosed) || errors.Is(err, app.ErrClosed) {
				return nil
			}
			return err
		})
	})
}
