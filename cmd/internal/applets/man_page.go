//go:build web || !(mips || mipsle || mini)

package applets

import (
	"bytes"
	"fmt"
	"strings"

	"skywire/cmd/internal/applet"
)

// helpText is the help of an applet or verb, taken apart.
type helpText struct {
	usage  string // without "usage: "
	about  string
	verbs  []helpItem
	flags  []helpItem
	common []helpItem
}

type helpItem struct{ head, text string }

// parseHelp reads what --help prints: the usage or "NAME: summary", paragraphs, and lists of lines "  head  text".
func parseHelp(text string) (h helpText) {
	var about []string
	for i, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		lines := strings.Split(block, "\n")
		title := ""
		if i == 0 {
			if usage, ok := strings.CutPrefix(lines[0], "usage: "); ok {
				h.usage = usage
			}
			continue
		}
		if strings.HasSuffix(lines[0], "flags:") {
			title, lines = lines[0], lines[1:]
		}
		items := helpItems(lines)
		switch {
		case items == nil && strings.HasSuffix(block, " --help says more."), strings.Contains(block, "\n-n NODE"):
		case items == nil:
			about = append(about, block)
		case title == "common flags:":
			h.common = items
		case strings.HasPrefix(items[0].head, "-"):
			h.flags = items
		default:
			h.verbs = items
		}
	}
	h.about = strings.Join(about, "\n\n")
	return h
}

// helpItems reads a list; nil: it is none.
func helpItems(lines []string) (items []helpItem) {
	for _, l := range lines {
		body, ok := strings.CutPrefix(l, "  ")
		if !ok || body == "" || body[0] == ' ' {
			return nil
		}
		head, text, _ := strings.Cut(body, "  ")
		items = append(items, helpItem{strings.TrimSpace(head), strings.TrimSpace(text)})
	}
	return items
}

// roffLine is how long a line of the source may be.
const roffLine = 78

// roff writes a page in the language of man(7).
type roff struct {
	bytes.Buffer
	begun bool // a paragraph would be empty: a heading came before
	forms bool // the last thing written was a form of usage
}

// wrapped writes a text of escaped words in lines.
func (r *roff) wrapped(text string) {
	n := 0
	for _, w := range strings.Fields(text) {
		if n > 0 && n+1+len(w) > roffLine {
			r.WriteByte('\n')
			n = 0
		} else if n > 0 {
			r.WriteByte(' ')
			n++
		}
		if n == 0 && (w[0] == '.' || w[0] == '\'') {
			w = `\&` + w
		}
		r.WriteString(w)
		n += len(w)
	}
	r.WriteByte('\n')
	r.begun, r.forms = false, false
}

// apart begins a paragraph.
func (r *roff) apart() {
	if !r.begun {
		r.WriteString(".PP\n")
	}
	r.begun = false
}

func (m *manual) begin(name, section, summary string) *roff {
	r := &roff{}
	fmt.Fprintf(r, ".TH %s %s %s %s Skywire\n", strings.ToUpper(escape(name)), section, m.day, quoted("skywire "+escape(applet.Version().Version)))
	r.section("NAME")
	r.wrapped(escape(name) + ` \- ` + escape(summary))
	return r
}

func quoted(s string) string { return `"` + s + `"` }

// escape writes a text so that roff prints it as it is.
func escape(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\\':
			b.WriteString(`\e`)
		case c == '-':
			b.WriteString(`\-`) // a hyphen that can be copied into a shell
		case c == '"':
			b.WriteString(`\(dq`) // also within quoted arguments
		case c == '\'':
			b.WriteString(`\(aq`)
		case c == '^':
			b.WriteString(`\(ha`)
		case c == '~':
			b.WriteString(`\(ti`)
		case c == '`':
			b.WriteString(`\(ga`)
		case c == '\u200b':
			b.WriteString(`\&`)
		case c > 126:
			fmt.Fprintf(&b, `\[u%04X]`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

func bold(s string) string   { return `\fB` + escape(s) + `\fR` }
func italic(s string) string { return `\fI` + escape(s) + `\fR` }

func (r *roff) section(title string) { r.heading(".SH", title) }

func (r *roff) subsection(title string) { r.heading(".SS", title) }

func (r *roff) heading(macro, title string) {
	fmt.Fprintf(r, "%s %s\n", macro, quoted(escape(title)))
	r.begun, r.forms = true, false
}

// usage writes a synopsis: what stays as it is bold, what one fills in italic.
func (r *roff) usage(line string) {
	if line == "" {
		return
	}
	words := strings.Fields(line)
	for i, w := range words {
		words[i] = usageWord(w)
	}
	if r.forms {
		r.WriteString(".br\n")
	} else {
		r.apart()
	}
	r.wrapped(strings.Join(words, " "))
	r.forms = true
}

// usageWord sets the parts of [--json] or KEY@ADDR… apart.
func usageWord(w string) string {
	var b strings.Builder
	part := func(s string) {
		switch {
		case s == "":
		case strings.ToUpper(s) == s && strings.ToLower(s) != s && !strings.HasPrefix(s, "-"):
			b.WriteString(italic(s))
		default:
			b.WriteString(bold(s))
		}
	}
	for w != "" {
		i := strings.IndexAny(w, "[]|…()")
		if i < 0 {
			part(w)
			break
		}
		part(w[:i])
		mark := w[i : i+1]
		if w[i] > 126 {
			mark = "…"
		}
		b.WriteString(escape(mark))
		w = w[i+len(mark):]
	}
	return b.String()
}

// paragraph writes a text that the reader's terminal wraps.
func (r *roff) paragraph(text string) {
	if text != "" {
		r.apart()
		r.wrapped(escape(text))
	}
}

// prose writes paragraphs; one that was laid out by hand stays as it is.
func (r *roff) prose(text string) {
	if text == "" {
		return
	}
	for block := range strings.SplitSeq(text, "\n\n") {
		if !laidOut(block) {
			r.paragraph(block)
			continue
		}
		r.apart()
		r.WriteString(".nf\n")
		for line := range strings.SplitSeq(strings.Trim(block, "\n"), "\n") {
			if line = escape(line); strings.HasPrefix(line, ".") {
				line = `\&` + line
			}
			r.WriteString(line + "\n")
		}
		r.WriteString(".fi\n")
	}
}

func laidOut(block string) bool {
	for line := range strings.SplitSeq(block, "\n") {
		if strings.HasPrefix(line, " ") || strings.Contains(line, "   ") {
			return true
		}
	}
	return false
}

// item writes an entry of a list; head is roff already.
func (r *roff) item(head, text string) {
	fmt.Fprintf(r, ".TP\n%s\n", head)
	if text == "" {
		text = "\u200b" // an entry has a text, be it one that nobody sees
	}
	r.wrapped(escape(text))
}

// lists writes the flags of a help text.
func (r *roff) lists(h helpText, common bool) {
	items := h.flags
	if common {
		items = h.common
	}
	for _, i := range items {
		name, value, _ := strings.Cut(i.head, " ")
		head := bold(name)
		if value != "" {
			head += " " + italic(value)
		}
		r.item(head, i.text)
	}
}

// seeAlso names the other pages.
func (r *roff) seeAlso(m *manual, self string) {
	r.section("SEE ALSO")
	var names []string
	add := func(name, section string) {
		if name != self {
			names = append(names, fmt.Sprintf("%s(%s)", bold(name), section))
		}
	}
	add("skywire", "1")
	for _, a := range m.all {
		add(pageOf(a), "1")
	}
	add("config.yaml", "5")
	r.wrapped(strings.Join(names, ", "))
}
