package supervisor

import "strings"

// Level is the weight of a log line.
type Level int

// The levels, as slog has them.
const (
	LevelDebug Level = iota
	LevelInfo
	LevelWarn
	LevelError
)

// ParseLevel reads the name of a level.
func ParseLevel(name string) (Level, bool) {
	switch strings.ToLower(name) {
	case "debug", "trace":
		return LevelDebug, true
	case "info", "notice":
		return LevelInfo, true
	case "warn", "warning":
		return LevelWarn, true
	case "error", "err", "fatal", "panic", "crit", "critical", "alert", "emerg":
		return LevelError, true
	}
	return LevelInfo, false
}

// levelScan is how far into a line its level is looked for.
const levelScan = 120

// LevelOf guesses the level of a line by what programs write: <3> of sd-daemon, level=warn of logfmt, "level":"error" of
// JSON, or the bare word in capitals. A line that does not say is info.
func LevelOf(text string) Level {
	if len(text) > 2 && text[0] == '<' && text[2] == '>' && text[1] >= '0' && text[1] <= '7' {
		return [...]Level{LevelError, LevelError, LevelError, LevelError, LevelWarn, LevelInfo, LevelInfo, LevelDebug}[text[1]-'0']
	}
	text = text[:min(len(text), levelScan)]
	for _, key := range []string{"level=", `"level":"`} {
		if _, rest, ok := strings.Cut(text, key); ok {
			end := strings.IndexFunc(rest, func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' })
			if end < 0 {
				end = len(rest)
			}
			if l, known := ParseLevel(rest[:end]); known {
				return l
			}
		}
	}
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		if len(w) >= 4 {
			if l, known := ParseLevel(w); known {
				return l
			}
		}
	}
	return LevelInfo
}
