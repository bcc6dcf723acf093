package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"skywire/cmd/internal/applet"
)

const linksAbout = `Makes a symbolic link to this binary in DIR for every name it answers to: viscript, skywire-node, skywire-manager, …
and the program names of 2017 (meshnet-run-node, …). --bare adds the bare names node, manager, vpn, …: only for a
folder of your own, never /usr/bin, where "node" is Node.js. Links that are there already stay; a file or link that
is not skywire's is never overwritten: then nothing is changed at all.`

// installLinks is the verb install-links.
func installLinks(e *applet.Env, all []applet.Applet) int {
	f := applet.NewFlags(e, "skywire install-links", "DIR [--bare]", linksAbout)
	bare := f.Bool("bare", false, "also the bare names: node, manager, …")
	args, err := f.Parse(1, 1)
	if err != nil {
		return f.Exit(err)
	}
	self, err := os.Executable()
	if err != nil {
		return f.Exit(fmt.Errorf("find this binary: %w", err))
	}
	made, err := makeLinks(self, args[0], linkNames(all, *bare))
	if err != nil {
		return f.Exit(err)
	}
	if f.JSON {
		return f.Exit(e.PrintJSON(made))
	}
	for _, l := range made {
		fmt.Fprintln(e.Stdout, l)
	}
	return applet.OK
}

// linkNames are the names to link, sorted. viscript has no prefix: nothing else is called so.
func linkNames(all []applet.Applet, bare bool) []string {
	names := slices.Collect(maps.Keys(legacy()))
	for _, a := range all {
		if a.Name == "viscript" || bare {
			names = append(names, a.Name)
		}
		if a.Name != "viscript" {
			names = append(names, "skywire-"+a.Name)
		}
	}
	slices.Sort(names)
	return names
}

// makeLinks links each name in dir to self and returns the paths. Nothing is changed unless all can be made.
func makeLinks(self, dir string, names []string) ([]string, error) {
	self, err := filepath.EvalSymlinks(self)
	if err != nil {
		return nil, fmt.Errorf("find this binary: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", dir, err)
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil, fmt.Errorf("folder %s: %w", dir, err)
	}
	target := self
	if filepath.Dir(self) == real {
		target = filepath.Base(self) // relative, so that the folder can move
	}
	var missing []string
	for _, n := range names {
		switch have, err := standing(filepath.Join(real, n), self); {
		case err != nil:
			return nil, err
		case !have:
			missing = append(missing, n)
		}
	}
	for _, n := range missing {
		if err := replaceLink(target, filepath.Join(real, n)); err != nil {
			return nil, err
		}
	}
	made := slices.Clone(names)
	for i := range made {
		made[i] = filepath.Join(dir, made[i])
	}
	return made, nil
}

// standing reports whether path already leads to self. A link to another skywire, or to one that is gone, is to be
// replaced; anything else is an error.
func standing(path, self string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at link: %w", err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if at, err := filepath.EvalSymlinks(path); err == nil && at == self {
			return true, nil
		}
		if to, err := os.Readlink(path); err == nil && strings.TrimSuffix(filepath.Base(to), ".exe") == filepath.Base(self) {
			return false, nil
		}
	}
	return false, applet.WithCode(applet.Refused,
		fmt.Errorf("%s exists and is not a link to skywire; nothing was changed. Remove it or choose another folder", path))
}

// replaceLink makes path a link to target in one step.
func replaceLink(target, path string) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make link: %w", err)
	}
	if err := os.Symlink(target, temp); err != nil {
		return fmt.Errorf("make link: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("make link: %w", err), os.Remove(temp))
	}
	return nil
}
