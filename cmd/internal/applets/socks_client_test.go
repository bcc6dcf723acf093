package applets

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
)

func TestSocksUsers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		users      int
		err        string
	}{
		{"two", "# family\nann:s3cret:x\r\n\nbob:y\n", 2, ""},
		{"nobody", "# later\n", 0, "nobody in it"},
		{"no password", "ann:x\nbob\n", 0, "line 2"},
		{"no name", ":x\n", 0, "line 1"},
		{"long", "ann:" + strings.Repeat("x", 256), 0, "line 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "users")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var talk bytes.Buffer
			got, err := socksCredentials(&applet.Env{Stderr: &talk}, socksClientConfig{UsersFile: file})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q in it", err, tt.err)
				}
				return
			}
			if err != nil || len(got) != tt.users || !got.Valid("ann", "s3cret:x") || got.Valid("ann", "") || got.Valid("eve", "") || talk.Len() > 0 {
				t.Errorf("%d users, %v, %s", len(got), err, &talk)
			}
		})
	}
}

// TestWordList reads both forms of a list in config.yaml.
func TestWordList(t *testing.T) {
	t.Parallel()
	want := []string{"alice", "auto"}
	for name, decode := range map[string]func(any) error{
		"word": func(v any) error {
			s, ok := v.(*string)
			if !ok {
				return errors.New("no list")
			}
			*s = "alice,auto"
			return nil
		},
		"list": func(v any) error {
			l, ok := v.(*[]string)
			if !ok {
				return errors.New("no word")
			}
			*l = want
			return nil
		},
	} {
		var l wordList
		if err := l.UnmarshalYAML(decode); err != nil || !slices.Equal(l.words(), want) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}
