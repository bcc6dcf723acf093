package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
)

// function is one entry of the runtime's table: the bytes of its code, and those of the tables that only it points to
// (what several share counts for the first).
type function struct {
	name         string
	code, tables int
}

var errTable = errors.New("not the function table of go1.20 or later")

const (
	magic     = 0xfffffff1 // go1.20 to at least go1.26: internal/abi.Go120PCLnTabMagic
	fixedFunc = 11 * 4     // runtime._func without the offsets that follow it
)

// readFuncs reads .gopclntab, whose layout is that of runtime.pcHeader, runtime.functab and runtime._func.
func readFuncs(f *elf.File) ([]function, error) {
	section := f.Section(".gopclntab")
	if section == nil {
		return nil, errTable
	}
	b, err := section.Data()
	if err != nil {
		return nil, err
	}
	if len(b) < 8 || f.ByteOrder.Uint32(b) != magic {
		return nil, errTable
	}
	word := int(b[7])
	header := func(i int) int {
		if word == 4 {
			return int(f.ByteOrder.Uint32(b[8+i*4:]))
		}
		return int(f.ByteOrder.Uint64(b[8+i*8:]))
	}
	t := table{
		order: f.ByteOrder, count: header(0),
		names: b[header(3):header(4)], pcdata: b[header(6):header(7)], funcs: b[header(7):],
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		if s.Name == "go:func.*" {
			t.stackMaps = int(s.Size)
		}
	}
	return t.read(), nil
}

type table struct {
	order                binary.ByteOrder
	count                int
	names, pcdata, funcs []byte
	stackMaps            int // bytes that the functions' own data offsets lead into
}

func (t *table) at(off int) int { return int(t.order.Uint32(t.funcs[off:])) }

func (t *table) read() []function {
	var used [2][]use // offsets into pcdata and into the stack maps
	list := make([]function, t.count)
	for i := range list {
		start := t.at(i*8 + 4)
		next := t.at((i+1)*8 + 4)
		if i == t.count-1 {
			next = len(t.funcs)
		}
		npcdata, nfuncdata := t.at(start+28), int(t.funcs[start+43])
		end := start + fixedFunc + 4*(npcdata+nfuncdata)
		if next < end {
			next = end
		}
		name := t.names[t.at(start+4):]
		name = name[:bytes.IndexByte(name, 0)]
		list[i] = function{string(name), t.at((i+1)*8) - t.at(i*8), end - start + 8 + len(name) + 1}
		for _, o := range []int{16, 20, 24} {
			used[0] = append(used[0], use{t.at(start + o), i})
		}
		for j := range npcdata {
			used[0] = append(used[0], use{t.at(start + fixedFunc + 4*j), i})
		}
		for j := range nfuncdata {
			if off := t.at(start + fixedFunc + 4*(npcdata+j)); off != 0xffffffff {
				used[1] = append(used[1], use{off, i})
			}
		}
	}
	share(list, used[0], len(t.pcdata))
	share(list, used[1], t.stackMaps)
	return list
}

// use is a place that function fn points to.
type use struct{ offset, fn int }

// share gives each function the bytes from a place it points to until the next such place.
func share(list []function, uses []use, size int) {
	slices.SortStableFunc(uses, func(a, b use) int { return a.offset - b.offset })
	for i := 0; i < len(uses); {
		j := i
		for j < len(uses) && uses[j].offset == uses[i].offset {
			j++
		}
		end := size
		if j < len(uses) {
			end = uses[j].offset
		}
		list[uses[i].fn].tables += max(0, end-uses[i].offset)
		i = j
	}
}
