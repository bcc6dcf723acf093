//go:build !mini

package applets

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// movedStatement is what a box signs with the key that it had and the one that it has.
func movedStatement(f *applet.Flags, oldFile string) ([]byte, error) {
	old, err := key.Load(oldFile)
	if err != nil {
		return nil, fmt.Errorf("%w; want the node.key of before", err)
	}
	own, err := key.Load(filepath.Join(f.State, "node.key"))
	if errors.Is(err, fs.ErrNotExist) {
		err = applet.WithCode(applet.NotFound, fmt.Errorf("%w; say with --state where the node's key is", err))
	}
	if err != nil {
		return nil, err
	}
	if old.Public() == own.Public() {
		return nil, applet.Usagef("%v", errSameKey)
	}
	change := envelope.KeyChange{Old: old.Public(), New: own.Public(), Issued: time.Now().Unix()}
	return change.Sign(old, own)
}
