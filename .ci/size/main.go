// Command size says which packages the bytes of a Go program for Linux lie in: code, the runtime's tables about that code
// (line numbers, stack maps), and data. It reads a program that still has its symbols (no -s) and sets what it finds
// against a committed list, so that growth has a name. With a list of parts it holds each to a budget of its own; those of the
// whole file are the Makefile's.
package main

import (
	"bufio"
	"cmp"
	"debug/elf"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	base := flag.String("base", "", "list to compare with: print what grew and what shrank")
	top := flag.Int("top", 0, "print only the N largest, or with -base the N largest changes")
	groups := flag.String("groups", "", "with -base: file of parts and their budgets; one that is over is an error")
	flag.Parse()
	if err := run(os.Stdout, flag.Arg(0), *base, *groups, *top); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, program, base, groups string, top int) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	sizes, err := measure(f)
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	sizes = fold(sizes)
	if base == "" {
		print(w, sizes, top)
		return nil
	}
	old, err := readList(base)
	if err != nil {
		return err
	}
	compare(w, old, sizes, top)
	if groups == "" {
		return nil
	}
	all, err := readGroups(groups)
	if err != nil {
		return err
	}
	return judge(w, all, old, sizes)
}

// parts are the bytes of one package in the file.
type parts struct{ code, tables, data int }

func (p parts) total() int { return p.code + p.tables + p.data }

// measure adds up the functions of the runtime's own table and the symbols of read-only and initialised data.
func measure(f *elf.File) (map[string]*parts, error) {
	sizes := map[string]*parts{}
	at := func(symbol string) *parts {
		name := owner(symbol)
		if sizes[name] == nil {
			sizes[name] = &parts{}
		}
		return sizes[name]
	}
	funcs, err := readFuncs(f)
	if err != nil {
		return nil, err
	}
	for _, fn := range funcs {
		p := at(fn.name)
		p.code += fn.code
		p.tables += fn.tables
	}
	tables := int(f.Section(".gopclntab").Size)
	for _, p := range sizes {
		tables -= p.tables
	}
	at("(linker)").tables += tables // the names of files, indexes
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	for _, section := range []string{".rodata", ".noptrdata", ".data", ".typelink", ".itablink"} {
		addData(f, section, symbols, at)
	}
	return sizes, nil
}

// addData counts the symbols of one section. The linker gives the symbols that hold all types or all strings no size:
// they reach to the next symbol.
func addData(f *elf.File, section string, symbols []elf.Symbol, at func(string) *parts) {
	var here []elf.Symbol
	var end uint64
	for _, s := range symbols {
		if int(s.Section) < len(f.Sections) && f.Sections[s.Section].Name == section {
			here = append(here, s)
			end = f.Sections[s.Section].Addr + f.Sections[s.Section].Size
		}
	}
	slices.SortStableFunc(here, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	for i, s := range here {
		next := end
		if i+1 < len(here) {
			next = here[i+1].Value
		}
		at(s.Name).data += int(next - s.Value) // with the padding after it
	}
}

// owner is the package of a symbol. Instances of generic code count for the package that wrote it.
func owner(symbol string) string {
	switch {
	case strings.HasPrefix(symbol, "type:.eq."), strings.HasPrefix(symbol, "type:.hash."):
		return "(equality and hashes of types)"
	case strings.HasPrefix(symbol, "type:"), symbol == "runtime.typelink", symbol == "runtime.types", symbol == "runtime.rodata":
		return "(types)"
	case strings.HasPrefix(symbol, "go:string."), strings.HasPrefix(symbol, "$f"):
		return "(strings and constants)"
	case strings.HasPrefix(symbol, "go:itab."), symbol == "runtime.itablink":
		return "(interface tables)"
	case strings.HasPrefix(symbol, "go:"), symbol == "runtime.findfunctab", strings.HasPrefix(symbol, "runtime.gcbits"):
		return "(linker)"
	}
	symbol = strings.TrimSuffix(symbol, "·f")
	generic := strings.IndexByte(symbol, '[')
	if generic < 0 {
		generic = len(symbol)
	}
	slash := strings.LastIndexByte(symbol[:generic], '/') + 1
	dot := strings.IndexByte(symbol[slash:generic], '.')
	if dot < 0 {
		return "(linker)"
	}
	return strings.ReplaceAll(symbol[:slash+dot], "%2e", ".")
}

type row struct {
	name string
	parts
}

func sorted(sizes map[string]*parts) []row {
	rows := make([]row, 0, len(sizes))
	for name, p := range sizes {
		rows = append(rows, row{name, *p})
	}
	slices.SortFunc(rows, func(a, b row) int {
		if d := b.total() - a.total(); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return rows
}

// small is the size below which packages share a line of the list, so that it changes only where something happened.
const small = 4096

// fold puts what is smaller than small under one name.
func fold(sizes map[string]*parts) map[string]*parts {
	rest, big := &parts{}, map[string]*parts{}
	for name, p := range sizes {
		if p.total() >= small {
			big[name] = p
			continue
		}
		*rest = parts{rest.code + p.code, rest.tables + p.tables, rest.data + p.data}
	}
	big["(packages below 4 KiB)"] = rest
	return big
}

// print writes the list that readList reads.
func print(w io.Writer, sizes map[string]*parts, top int) {
	rows, sum := sorted(sizes), parts{}
	for _, r := range rows {
		sum = parts{sum.code + r.code, sum.tables + r.tables, sum.data + r.data}
	}
	if top > 0 && len(rows) > top {
		rows = rows[:top]
	}
	fmt.Fprintf(w, "%9s %9s %9s %9s\n", "bytes", "code", "tables", "data")
	for _, r := range append([]row{{"total", sum}}, rows...) {
		fmt.Fprintf(w, "%9d %9d %9d %9d  %s\n", r.total(), r.code, r.tables, r.data, r.name)
	}
}

func readList(path string) (map[string]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list := map[string]int{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		var total, code, tables, data int
		if n, _ := fmt.Sscan(s.Text(), &total, &code, &tables, &data); n == 4 {
			name := strings.Join(strings.Fields(s.Text())[4:], " ")
			list[name] = total
		}
	}
	return list, s.Err()
}

// compare prints the packages whose size differs from the list's, the largest change first.
func compare(w io.Writer, old map[string]int, sizes map[string]*parts, top int) {
	type change struct {
		name     string
		was, now int
	}
	var changes []change
	sum := change{name: "total", was: old["total"]}
	for name, p := range sizes {
		sum.now += p.total()
		if p.total() != old[name] {
			changes = append(changes, change{name, old[name], p.total()})
		}
	}
	for name, was := range old {
		if sizes[name] == nil && name != "total" {
			changes = append(changes, change{name, was, 0})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		if d := abs(b.now-b.was) - abs(a.now-a.was); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	if top > 0 && len(changes) > top {
		changes = changes[:top]
	}
	for _, c := range append([]change{sum}, changes...) {
		fmt.Fprintf(w, "%+9d  %9d -> %9d  %s\n", c.now-c.was, c.was, c.now, c.name)
	}
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
