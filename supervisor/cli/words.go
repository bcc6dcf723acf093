package cli

import (
	"errors"
	"strings"
)

// splitWords cuts a line of the shell into words, as a Bourne shell does without its expansions: blanks separate,
// '…' keeps everything, "…" keeps everything but \" and \\, a backslash keeps the next letter, # begins a comment.
// Case is never changed.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	in := false // in a word
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a ' is not closed")
			}
			word.WriteString(line[i+1 : i+1+end])
			i += end + 1
			in = true
		case c == '"':
			in = true
			for i++; ; i++ {
				if i >= len(line) {
					return nil, errors.New(`a " is not closed`)
				}
				if line[i] == '"' {
					break
				}
				if line[i] == '\\' && i+1 < len(line) && (line[i+1] == '"' || line[i+1] == '\\') {
					i++
				}
				word.WriteByte(line[i])
			}
		case c == '\\':
			if i+1 >= len(line) {
				return nil, errors.New(`a \ at the end of the line`)
			}
			i++
			word.WriteByte(line[i])
			in = true
		case c == ' ' || c == '\t' || c == '\r':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		case c == '#' && !in:
			return words, nil
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// quote writes a word so that splitWords reads it back.
func quote(w string) string {
	if w != "" && !strings.ContainsAny(w, " \t\r\n'\"\\#$&|;<>()*?[]`~") {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

func quoteAll(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = quote(w)
	}
	return strings.Join(out, " ")
}
