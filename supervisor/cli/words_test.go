package cli

import (
	"slices"
	"testing"
)

func TestSplitWords(t *testing.T) {
	t.Parallel()
	tests := []struct {
		line string
		want []string
		bad  bool
	}{
		{"", nil, false},
		{"  ps \t -a ", []string{"ps", "-a"}, false},
		{"start App MiXed/Case", []string{"start", "App", "MiXed/Case"}, false},
		{`start a 'two words' "and 'more'" it\'s ''`, []string{"start", "a", "two words", "and 'more'", "it's", ""}, false},
		{`a"b c"d`, []string{"ab cd"}, false},
		{`"\" \\ \n"`, []string{`" \ \n`}, false},
		{`a\ b`, []string{"a b"}, false},
		{"ps # all", []string{"ps"}, false},
		{"ping app#3", []string{"ping", "app#3"}, false},
		{"# nothing", nil, false},
		{"start ключ 日本", []string{"start", "ключ", "日本"}, false},
		{"'open", nil, true},
		{`"open`, nil, true},
		{`end\`, nil, true},
	}
	for _, tt := range tests {
		got, err := splitWords(tt.line)
		if !slices.Equal(got, tt.want) || (err != nil) != tt.bad {
			t.Errorf("%q: %q, %v, want %q", tt.line, got, err, tt.want)
		}
	}
}

func FuzzSplitWords(f *testing.F) {
	for _, s := range []string{"ps -a", `start a 'b c' "d\"e" f\ g '' #x`, "'", `\`, "a#b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		if err != nil {
			return
		}
		again, err := splitWords(quoteAll(words))
		if err != nil || !slices.Equal(words, again) {
			t.Errorf("%q → %q → %q → %q, %v", line, words, quoteAll(words), again, err)
		}
	})
}
