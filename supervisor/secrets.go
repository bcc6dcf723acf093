package supervisor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// maxSecret bounds one secret, in bytes.
const maxSecret = 1 << 20

// secretDir holds the secrets of a launch; 0: those of all.
func (s *Supervisor) secretDir(id uint64) string {
	dir := filepath.Join(s.c.RunDir, "secrets")
	if id == 0 {
		return dir
	}
	return filepath.Join(dir, strconv.FormatUint(id, 10))
}

// putSecrets copies the secrets of an app, as their files are now, to where it alone can read them, and returns the
// variable that says where: CREDENTIALS_DIRECTORY, as from systemd. Arguments and environment, which others see, hold
// none. The run directory is RAM on any sane system.
func (s *Supervisor) putSecrets(l launch, uid int) ([]string, error) {
	s.dropSecrets(l.id)
	if len(l.app.Secrets) == 0 {
		return nil, nil
	}
	dir := s.secretDir(l.id)
	if err := os.MkdirAll(s.secretDir(0), 0o711); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for name, file := range l.app.Secrets {
		if err := s.putSecret(filepath.Join(dir, name), file, uid); err != nil {
			s.dropSecrets(l.id)
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
	}
	if uid >= 0 {
		if err := os.Chown(dir, uid, -1); err != nil {
			s.dropSecrets(l.id)
			return nil, err
		}
	}
	return []string{"CREDENTIALS_DIRECTORY=" + dir}, nil
}

func (s *Supervisor) putSecret(to, from string, uid int) error {
	if !filepath.IsAbs(from) {
		from = filepath.Join(filepath.Dir(s.c.File), from)
	}
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = fmt.Errorf("%s: longer than %d bytes", from, maxSecret)
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, b, 0o400); err != nil || uid < 0 {
		return err
	}
	return os.Chown(to, uid, -1)
}

// dropSecrets removes what putSecrets made for a launch that has ended.
func (s *Supervisor) dropSecrets(id uint64) {
	if err := os.RemoveAll(s.secretDir(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("secrets not removed", "id", id, "err", err)
	}
}

// cleanSecrets removes those of apps that run no more. Only for the loop.
func (s *Supervisor) cleanSecrets() {
	list, _ := os.ReadDir(s.secretDir(0))
	for _, d := range list {
		if n, err := strconv.ParseUint(d.Name(), 10, 64); err != nil || s.table[n] == nil || s.table[n].run == nil {
			os.RemoveAll(filepath.Join(s.secretDir(0), d.Name()))
		}
	}
}
