package config

import (
	_ "embed"
	"reflect"
	"slices"
	"strings"
	"time"
)

//go:embed example.yaml
var example string

// Key is a key of config.yaml as a manual describes it.
type Key struct {
	Section string
	Path    string // below the section, or below the entry of an app: limits.memory
	Value   string // the default, or what kind of value it takes
	Text    string
}

// Annotated lists the keys of settings and of an app, with the remarks of the annotated example, in its order.
func Annotated() (keys []Key) {
	var path [8]string
	var section string
	for line := range strings.SplitSeq(example, "\n") {
		body := strings.TrimLeft(line, " ")
		depth := (len(line) - len(body)) / 2
		body = strings.TrimPrefix(body, "# ") // a key that has no value to show
		name, rest, ok := strings.Cut(body, ":")
		if !ok || strings.ContainsAny(name, " #`") || depth >= len(path) {
			continue
		}
		value, text, _ := strings.Cut(rest, "#")
		value, text = strings.TrimSpace(value), strings.TrimSpace(text)
		path[depth] = name
		switch {
		case depth == 0 && body == line && value == "":
			section = name
			continue
		case section == "apps" && depth < 2, depth == 0:
			continue
		}
		first := 1
		if section == "apps" {
			first = 2
		}
		keys = append(keys, Key{section, strings.Join(path[first:depth+1], "."), value, text})
	}
	return keys
}

// KeysOf lists the keys of a section by what it is decoded into, sorted.
func KeysOf(into any) []Key { return keysBelow(reflect.TypeOf(into), "") }

func keysBelow(t reflect.Type, prefix string) (list []Key) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	known := map[string]reflect.Type{}
	keysOf(t, known)
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		ft := known[name]
		if ft.Kind() == reflect.Struct && kindOf(ft) == "" {
			list = append(list, keysBelow(ft, prefix+name+".")...)
			continue
		}
		list = append(list, Key{Path: prefix + name, Value: kindOf(ft)})
	}
	return list
}

// kindOf is a kind of value in a word; "" for a struct of keys.
func kindOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Duration](), reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.Struct:
		return ""
	case reflect.Slice:
		return "[" + kindOf(t.Elem()) + ", …]"
	case reflect.Map:
		return "{name: " + kindOf(t.Elem()) + ", …}"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Interface:
		return "value"
	}
	return "number"
}
