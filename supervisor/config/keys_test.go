package config

import (
	"slices"
	"strings"
	"testing"
)

// TestAnnotated: the example that manuals are made of has every key that the file may have, with its remark.
func TestAnnotated(t *testing.T) {
	t.Parallel()
	have := map[string][]string{}
	for _, k := range Annotated() {
		have[k.Section] = append(have[k.Section], k.Path)
	}
	for section, into := range map[string]any{"settings": &Settings{}, "apps": &App{}} {
		for _, k := range KeysOf(into) {
			if !slices.Contains(have[section], k.Path) {
				t.Errorf("the example lacks %s in %s", k.Path, section)
			}
			if k.Value == "" {
				t.Errorf("%s in %s: what kind?", k.Path, section)
			}
		}
		for _, path := range have[section] {
			if !slices.ContainsFunc(KeysOf(into), func(k Key) bool { return k.Path == path || strings.HasPrefix(k.Path, path+".") }) {
				t.Errorf("%s has no key %q", section, path)
			}
		}
	}
}
