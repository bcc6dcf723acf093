package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"skywire/signal"
)

// program finds what path of an app means and with which argv[0] to start it: the file itself (absolute, or relative
// to the folder of config.yaml, then to the working directory), else a link of its base name beside our own binary,
// else our own binary under that name, else a program in PATH.
func (s *Supervisor) program(path string) (file, argv0 string, err error) {
	base := filepath.Base(path)
	candidates := []string{path}
	if !filepath.IsAbs(path) {
		candidates = []string{filepath.Join(s.c.Dir, path)}
		if s.file.Path != "" {
			candidates = slices.Insert(candidates, 0, filepath.Join(filepath.Dir(s.file.Path), path))
		}
	}
	for _, d := range s.c.LinkDirs {
		candidates = append(candidates, filepath.Join(d, base))
	}
	for _, p := range candidates {
		// A plain name is not meant to be a folder, or a text that happens to lie there.
		if st, serr := os.Stat(p); serr == nil && !st.IsDir() {
			if st.Mode()&0o111 != 0 || filepath.Ext(p) == ".exe" {
				return p, p, nil
			}
			err = signal.Errorf(signal.ErrRefused, "%s is not executable", p)
		}
	}
	if s.c.Self != "" && s.c.Answers != nil && s.c.Answers(base) {
		return s.c.Self, base, nil
	}
	if !strings.Contains(path, "/") {
		if p, lerr := exec.LookPath(path); lerr == nil {
			return p, path, nil
		}
	}
	if err != nil {
		return "", "", err
	}
	return "", "", &fs.PathError{Op: "find program", Path: path, Err: errors.New("no such file; looked at " + strings.Join(candidates, ", "))}
}
