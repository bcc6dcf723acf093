package vm

import (
	"fmt"
	"io"
	"path"
	"strings"
)

// archive writes an initramfs: the cpio form "newc" of the kernel's buffer-format.rst, uncompressed, since unpacking gzip
// takes an emulated processor longer than reading.
type archive struct {
	w    io.Writer
	n    int // bytes written, for padding
	ino  int
	dirs map[string]bool
	err  error
}

const (
	modeDir  = 0o40755
	modeFile = 0o100755
	modeChar = 0o20600
)

func newArchive(w io.Writer) *archive { return &archive{w: w, dirs: map[string]bool{}} }

// dir adds a folder and those above it, once each.
func (a *archive) dir(name string) {
	name = strings.Trim(name, "/")
	if name == "." || name == "" || a.dirs[name] {
		return
	}
	a.dir(path.Dir(name))
	a.dirs[name] = true
	a.entry(name, modeDir, 0, nil)
}

func (a *archive) file(name string, data []byte) {
	a.dir(path.Dir(name))
	a.entry(name, modeFile, 0, data)
}

// char adds a character device; major and minor are below 256.
func (a *archive) char(name string, major, minor int) {
	a.dir(path.Dir(name))
	a.entry(name, modeChar, major<<8|minor, nil)
}

// close ends the archive and returns the first error of all.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, nil)
	return a.err
}

func (a *archive) entry(name string, mode, dev int, data []byte) {
	a.ino++
	name = strings.TrimPrefix(name, "/")
	// magic, ino, mode, uid, gid, nlink, mtime, size, devmajor, devminor, rdevmajor, rdevminor, namesize, check
	a.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, mode, 0, 0, 1, 0, len(data), 0, 0, dev>>8, dev&0xff, len(name)+1, 0))
	a.write(append([]byte(name), 0))
	a.pad()
	a.write(data)
	a.pad()
}

func (a *archive) pad() { a.write(make([]byte, (4-a.n%4)%4)) }

func (a *archive) write(b []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(b)
	a.n += n
	a.err = err
}
