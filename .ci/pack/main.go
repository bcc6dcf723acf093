// Command pack makes the archives of a release. The same input gives the same bytes: entries have one time, one owner, and the order
// in which they are named.
//
//	pack archive OUT.zip|OUT.tar.gz NAME[:MODE]=FILE…     MODE is octal, 644 by default; =-TARGET makes a symbolic link (tar)
//	pack oci OUT.tar VERSION PLATFORM=PROGRAM…            an OCI image layout with an image for each platform of Linux
//
// SOURCE_DATE_EPOCH is the time of everything.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: pack archive OUT NAME[:MODE]=FILE… | pack oci OUT VERSION PLATFORM=PROGRAM…")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	at := time.Unix(seconds, 0).UTC()
	switch args[0] {
	case "archive":
		return archive(args[1], args[2:], at)
	case "oci":
		return image(args[1], args[2], args[3:], at)
	}
	return fmt.Errorf("unknown word %q", args[0])
}

// entry is a file or, with link, a symbolic link of an archive.
type entry struct {
	name  string
	mode  int64
	body  []byte
	link  string
	dir   bool
	owner int
}

func entries(words []string) ([]entry, error) {
	var all []entry
	for _, w := range words {
		name, file, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not NAME=FILE", w)
		}
		e := entry{mode: 0o644}
		if n, mode, ok := strings.Cut(name, ":"); ok {
			m, err := strconv.ParseInt(mode, 8, 32)
			if err != nil {
				return nil, err
			}
			name, e.mode = n, m
		}
		e.name = name
		if target, ok := strings.CutPrefix(file, "-"); ok {
			e.link, e.mode = target, 0o777
		} else {
			var err error
			if e.body, err = os.ReadFile(file); err != nil {
				return nil, err
			}
		}
		all = append(all, e)
	}
	return all, nil
}

func archive(out string, words []string, at time.Time) error {
	all, err := entries(words)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if strings.HasSuffix(out, ".zip") {
		err = writeZip(&b, all, at)
	} else {
		err = writeGzip(&b, func(w io.Writer) error { return writeTar(w, all, at) })
	}
	if err != nil {
		return err
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

func writeZip(w io.Writer, all []entry, at time.Time) error {
	z := zip.NewWriter(w)
	for _, e := range all {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: at}
		h.SetMode(os.FileMode(e.mode))
		f, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(e.body); err != nil {
			return err
		}
	}
	return z.Close()
}

func writeGzip(w io.Writer, write func(io.Writer) error) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := write(z); err != nil {
		return err
	}
	return z.Close()
}

func writeTar(w io.Writer, all []entry, at time.Time) error {
	t := tar.NewWriter(w)
	for _, e := range all {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.body)), ModTime: at, Format: tar.FormatUSTAR, Uid: e.owner, Gid: e.owner}
		switch {
		case e.dir:
			h.Typeflag = tar.TypeDir
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		default:
			h.Typeflag = tar.TypeReg
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(e.body); err != nil {
			return err
		}
	}
	return t.Close()
}
