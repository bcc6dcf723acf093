package applet

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"slices"
)

// Sections gives parts of the box's config.yaml, each into a struct; unknown keys are errors that name the line.
type Sections interface {
	Section(name string, into any) error
}

// Opener reads a config.yaml.
type Opener func(path string) (Sections, error)

// Overlay fills into from the section of the config file, then sets again the flags that a person gave, so that flags
// override the file. Call it after Parse. A file that nobody named and that is not there is no error.
func (f *Flags) Overlay(open Opener, section string, into any) error {
	s, err := open(f.Config)
	if errors.Is(err, fs.ErrNotExist) && !f.configGiven {
		return nil
	}
	if err != nil {
		return err
	}
	restore := f.snapshot()
	if err := s.Section(section, into); err != nil {
		return fmt.Errorf("%s: %w", f.Config, err)
	}
	return restore()
}

// snapshot remembers the flags given and returns what sets them again.
func (f *Flags) snapshot() func() error {
	type saved struct {
		g    *flag.Flag
		text string
		list []string
	}
	var all []saved
	f.Visit(func(g *flag.Flag) {
		s := saved{g: g, text: g.Value.String()}
		if l, ok := g.Value.(*listValue); ok {
			s.list = slices.Clone(*l.p)
		}
		all = append(all, s)
	})
	return func() error {
		for _, s := range all {
			if l, ok := s.g.Value.(*listValue); ok {
				*l.p = s.list
				continue
			}
			if err := s.g.Value.Set(s.text); err != nil {
				return fmt.Errorf("flag --%s: %w", s.g.Name, err)
			}
		}
		return nil
	}
}
