package config

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// Schema describes config.yaml for editors, as JSON Schema (draft 2020-12). sections are the applets', by name, each a
// pointer to what Section decodes it into.
func Schema(sections map[string]any) map[string]any {
	all := map[string]any{
		"settings": schemaOf(reflect.TypeFor[Settings]()),
		"apps":     schemaOf(reflect.TypeFor[map[string]*App]()),
	}
	for name, into := range sections {
		all[name] = schemaOf(reflect.TypeOf(into))
	}
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "config.yaml of skywire",
		"type": []string{"object", "null"}, "properties": all, "additionalProperties": false,
	}
}

// schemaOf walks the same types as strict, so that the two can't differ about keys.
func schemaOf(t reflect.Type) map[string]any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[Duration](), t == reflect.TypeFor[time.Duration]():
		return map[string]any{"type": []string{"string", "number"}, "description": "10s, 1m30s, or a number of seconds"}
	case t == reflect.TypeFor[Size]():
		return map[string]any{"type": []string{"string", "integer"}, "description": "64MiB, or a number of bytes"}
	case t == reflect.TypeFor[Restart]():
		return map[string]any{"enum": []Restart{Never, OnFailure, Always, ""}}
	case reflect.PointerTo(t).Implements(reflect.TypeFor[yaml.Unmarshaler]()):
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Struct:
		keys := map[string]reflect.Type{}
		keysOf(t, keys)
		all := map[string]any{}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			all[k] = schemaOf(keys[k])
		}
		return map[string]any{"type": []string{"object", "null"}, "properties": all, "additionalProperties": false}
	case reflect.Map:
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": schemaOf(t.Elem())}
	case reflect.Slice:
		return map[string]any{"type": []string{"array", "null"}, "items": schemaOf(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.String: // a scalar of yaml is taken as text
		return map[string]any{"type": []string{"string", "number", "boolean", "null"}}
	case reflect.Interface:
		return map[string]any{}
	}
	return map[string]any{"type": "integer"}
}
