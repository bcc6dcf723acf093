package config

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestSchema: what the parser takes conforms to the schema, and what it refuses for a key does not.
func TestSchema(t *testing.T) {
	t.Parallel()
	schema := Schema(map[string]any{"node": &struct {
		Name string `yaml:"name"`
	}{}})
	example, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	of2017, err := os.ReadFile(shared(t, "viscript-2017-config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for text, good := range map[string]bool{
		string(example): true,
		string(of2017):  true,
		"":              true,
		"apps:\n  a: {path: x, default_args: [1, b], stop_timeout: 3, limits: {memory: 64M}}\nnode: {name: n}": true,
		"apps:\n  a: {path: x, pathh: y}":         false,
		"apps:\n  a: {path: x, autostart: maybe}": false,
		"settings: {remote: {reed: [a]}}":         false,
		"apps: [a]":                               false,
		"nosuch: 1":                               false,
		"node: {nam: a}":                          false,
		"apps:\n  a: {path: x, restart: perhaps}": false,
	} {
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		if err := conforms(schema, doc, ""); (err == nil) != good {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// conforms is as much of JSON Schema as Schema uses.
func conforms(schema map[string]any, v any, path string) error {
	if list, ok := schema["enum"].([]Restart); ok && !slices.Contains(list, Restart(fmt.Sprint(v))) {
		return fmt.Errorf("%s: %v", path, v)
	}
	kind := map[bool]string{true: "null"}[v == nil]
	switch v.(type) {
	case map[string]any:
		kind = "object"
	case []any:
		kind = "array"
	case bool:
		kind = "boolean"
	case int:
		kind = "integer"
	case float64:
		kind = "number"
	case string:
		kind = "string"
	}
	types, _ := schema["type"].([]string)
	if one, ok := schema["type"].(string); ok {
		types = []string{one}
	}
	if types != nil && !slices.Contains(types, kind) && !(kind == "integer" && slices.Contains(types, "number")) {
		return fmt.Errorf("%s: %s, expected %v", path, kind, types)
	}
	switch v := v.(type) {
	case map[string]any:
		known, _ := schema["properties"].(map[string]any)
		for k, e := range v {
			s, ok := known[k].(map[string]any)
			if !ok {
				if s, ok = schema["additionalProperties"].(map[string]any); !ok {
					return fmt.Errorf("%s: unknown key %s", path, k)
				}
			}
			if err := conforms(s, e, path+"."+k); err != nil {
				return err
			}
		}
	case []any:
		for i, e := range v {
			if err := conforms(schema["items"].(map[string]any), e, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	}
	return nil
}
