package applet

import (
	"os"
	"strconv"
	"strings"
)

// Colours of a terminal.
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	bold   = "\x1b[1m"
	plain  = "\x1b[0m"
)

// Colours reports whether what goes to Stdout may be coloured: it is a terminal that knows colours, and nobody said NO_COLOR.
func (e *Env) Colours() bool {
	f, ok := e.Stdout.(*os.File)
	if !ok || e.Getenv("NO_COLOR") != "" || e.Getenv("TERM") == "dumb" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// Paint colours a table that is laid out already: its heading, which is one of the first two lines, and below it the states
// and losses. A text without such columns stays as it is.
func Paint(text string) string {
	lines := strings.Split(text, "\n")
	head := -1
	var columns []int // where they begin, in letters
	for i := 0; i < min(2, len(lines)) && head < 0; i++ {
		at := 0
		for cell := range strings.SplitAfterSeq(lines[i], "  ") {
			switch strings.TrimSpace(cell) {
			case "STATE", "ONLINE", "LOSS":
				head, columns = i, append(columns, at+len(cell)-len(strings.TrimLeft(cell, " ")))
			}
			at += len([]rune(cell))
		}
	}
	if head < 0 {
		return text
	}
	lines[head] = bold + lines[head] + plain
	for i := head + 1; i < len(lines); i++ {
		lines[i] = paintCells(lines[i], columns)
	}
	return strings.Join(lines, "\n")
}

// paintCells colours the cells of a row that begin at columns.
func paintCells(line string, columns []int) string {
	letters := []rune(line)
	for i := len(columns) - 1; i >= 0; i-- { // from the right, so that places stay
		from := columns[i]
		if from >= len(letters) {
			continue
		}
		cell, _, _ := strings.Cut(string(letters[from:]), "  ")
		if colour := colourOf(strings.TrimSpace(cell)); colour != "" {
			to := from + len([]rune(cell))
			letters = []rune(string(letters[:from]) + colour + cell + plain + string(letters[to:]))
		}
	}
	return string(letters)
}

// colourOf says how a state or a loss looks; "": as all else.
func colourOf(cell string) string {
	number, isLoss := strings.CutSuffix(cell, "%")
	if loss, err := strconv.ParseFloat(strings.TrimSpace(number), 64); isLoss && err == nil {
		switch {
		case loss >= 10:
			return red
		case loss >= 1:
			return yellow
		}
		return ""
	}
	for _, s := range states {
		if strings.Contains(s.cells, " "+cell+" ") {
			return s.colour
		}
	}
	return ""
}

// states have each state between two spaces.
var states = [...]struct{ colour, cells string }{
	{green, " running ready up online true active member "},
	{yellow, " starting stopping backoff connecting pending waiting suspect guest "},
	{red, " failed down offline refused revoked dead lost "},
}
