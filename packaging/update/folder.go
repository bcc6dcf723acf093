package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Folder is a release on this box.
type Folder string

// Open implements Source.
func (f Folder) Open(_ context.Context, name string) (io.ReadCloser, error) {
	if !plain(name, maxName) {
		return nil, fmt.Errorf("%w: the name %.80q", ErrFile, name)
	}
	return os.Open(filepath.Join(string(f), name))
}

// Files lists the programs in the folder: every file called PREFIX then a platform, such as skywire-linux-arm64; .exe is cut.
func (f Folder) Files(prefix string) ([]File, error) {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return nil, err
	}
	var all []File
	for _, e := range entries {
		platform, ok := strings.CutPrefix(e.Name(), prefix)
		platform = strings.TrimSuffix(platform, ".exe")
		if !ok || !e.Type().IsRegular() || strings.Contains(platform, ".") {
			continue
		}
		sum, size, err := digest(filepath.Join(string(f), e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, File{Platform: platform, Name: e.Name(), Size: size, SHA256: sum})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Platform < all[j].Platform })
	return all, nil
}

// digest reads a file through.
func digest(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// same reports whether path holds the program with that digest; one that is not there does not.
func same(path, sum string) (bool, error) {
	have, _, err := digest(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return have == sum, err
}
