package key

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	fileTag = "skywire-private-key-1 "
	fileMax = 4096 // nothing that long is a key file; don't read a disk image given by mistake
)

// LoadOrCreate reads the key at path, or makes one there if nothing is there: mode 0600, complete or absent even
// if the power goes, and one winner if two processes start at once. A damaged file is an error, not replaced.
func LoadOrCreate(path string) (k *Private, created bool, err error) {
	k, err = load(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, false, err
	}
	if k, err = Generate(); err != nil {
		return nil, false, err
	}
	switch err = create(path, k); {
	case err == nil:
		return k, true, nil
	case errors.Is(err, fs.ErrExist):
		k, err = load(path)
		return k, false, err
	}
	return nil, false, err
}

// Load reads the key at path; the error of a file that is not there is fs.ErrNotExist.
func Load(path string) (*Private, error) { return load(path) }

func load(path string) (*Private, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	defer f.Close()
	if runtime.GOOS != "windows" {
		info, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("open key: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("%s: %w: run chmod 600 on it", path, ErrMode)
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, fileMax))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	defer clear(b)
	text, ok := strings.CutPrefix(strings.TrimSpace(string(b)), fileTag)
	if !ok {
		return nil, fmt.Errorf("%s: %w: restore it from a backup or move it away", path, ErrFile)
	}
	seed, err := encoding().DecodeString(text)
	if err != nil || len(seed) != Size {
		return nil, fmt.Errorf("%s: %w: restore it from a backup or move it away", path, ErrFile)
	}
	k, err := FromSeed([Size]byte(seed))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// create writes a temporary file and links it to its name, which fails if the name exists. File systems without
// hard links (FAT) get a rename.
func create(path string, k *Private) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	defer os.Remove(f.Name())
	if err := fill(f, k); err != nil {
		return fmt.Errorf("create key %s: %w", path, err)
	}
	err = os.Link(f.Name(), path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	return syncDir(dir)
}

func fill(f *os.File, k *Private) error {
	seed := k.Seed()
	_, err := f.WriteString(fileTag + encoding().EncodeToString(seed[:]) + "\n")
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes the new name durable where directories can be synced at all.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil // a directory one may write but not read: the file itself is synced
	}
	defer d.Close()
	if err := d.Sync(); err != nil && runtime.GOOS == "linux" && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
