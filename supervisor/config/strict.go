package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// strict decodes n into the value that into points to, after it has looked for keys that nobody knows. path is for
// messages: apps.meshnet-node.
func strict(n *yaml.Node, path string, into any) error {
	errs := unknownKeys(n, path, reflect.TypeOf(into), 0)
	if err := n.Decode(into); err != nil {
		var te *yaml.TypeError
		if errors.As(err, &te) {
			for _, s := range te.Errors {
				errs = append(errs, invalid("%s: %s", path, s))
			}
		} else {
			errs = append(errs, invalid("%s: %v", path, err))
		}
	}
	return errors.Join(errs...)
}

// maxDepth ends the walk in documents that refer to themselves.
const maxDepth = 32

func unknownKeys(n *yaml.Node, path string, t reflect.Type, depth int) (errs []error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if depth > maxDepth || reflect.PointerTo(t).Implements(reflect.TypeFor[yaml.Unmarshaler]()) {
		return nil
	}
	switch {
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		known := map[string]reflect.Type{}
		keysOf(t, known)
		var names []string
		for k := range known {
			names = append(names, k)
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			ft, ok := known[k.Value]
			switch {
			case ok:
				errs = append(errs, unknownKeys(v, path+"."+k.Value, ft, depth+1)...)
			case k.Tag == "!!merge":
			default:
				errs = append(errs, invalid("line %d: unknown key %q in %s%s", k.Line, k.Value, path, Meant(k.Value, names)))
			}
		}
	case t.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			errs = append(errs, unknownKeys(n.Content[i+1], path+"."+n.Content[i].Value, t.Elem(), depth+1)...)
		}
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, v := range n.Content {
			errs = append(errs, unknownKeys(v, fmt.Sprintf("%s[%d]", path, i), t.Elem(), depth+1)...)
		}
	}
	return errs
}

// keysOf collects the keys that the yaml library accepts for struct t.
func keysOf(t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case strings.Contains(opts, "inline"):
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			if ft.Kind() == reflect.Struct {
				keysOf(ft, into)
			}
		case name == "":
			into[strings.ToLower(f.Name)] = f.Type
		default:
			into[name] = f.Type
		}
	}
}

// Meant returns `, did you mean "x"?` for the nearest of names, or "".
func Meant(word string, names []string) string {
	best, least := "", 1+max(1, min(3, len(word)/3))
	for _, n := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(n)); d < least || d == least && best != "" && n < best {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// distance is the number of letters to insert, delete, replace or swap.
func distance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
