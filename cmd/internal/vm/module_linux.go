package vm

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is a kernel module, decompressed.
type module struct {
	name string
	data []byte
}

// modules reads modules by name and all that they need, in the order in which they must be loaded. What is built into the
// kernel is left out; what the kernel does not have at all is an error, if the packages say what is built in: those of 2026
// do not, and then the guest finds out.
func (s *System) modules(names []string) ([]module, error) {
	dir := filepath.Join(s.dir, "modules", s.Version)
	text, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	unsure := os.IsNotExist(err)
	if err != nil && !unsure {
		return nil, fmt.Errorf("modules: %w", err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		seen[plain(strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko"))] = true
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	at := map[string]string{}
	for _, f := range files {
		base, _, ok := strings.Cut(f.Name(), ".ko")
		if ok {
			at[plain(base)] = filepath.Join(dir, f.Name())
		}
	}
	var all []module
	var add func(name string) error
	add = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		path, ok := at[name]
		if !ok && unsure {
			return nil
		}
		if !ok {
			return fmt.Errorf("the kernel %s has no module %s", s.Version, name)
		}
		data, needs, wants, err := readModule(path)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, n := range wants {
			if at[n] != "" {
				needs = append(needs, n)
			}
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return err
			}
		}
		all = append(all, module{name, data})
		return nil
	}
	for _, n := range names {
		if err := add(plain(n)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// plain is the name as the kernel compares it.
func plain(name string) string { return strings.ReplaceAll(name, "-", "_") }

// readModule returns a module, the names of those it needs, and of those that it wants to come first where they exist.
func readModule(path string) (data []byte, needs, wants []string, err error) {
	if strings.HasSuffix(path, ".xz") {
		data, err = exec.Command("xz", "-dc", path).Output()
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, nil, nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, nil, nil, fmt.Errorf("%s has no .modinfo", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, nil, nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			for n := range strings.SplitSeq(list, ",") {
				needs = append(needs, plain(n))
			}
		}
		if _, list, ok := strings.Cut(field, "softdep=pre: "); ok { // names of algorithms, which modules serve under others
			for n := range strings.FieldsSeq(list) {
				wants = append(wants, plain(n), plain(n)+"_generic")
			}
		}
	}
	return data, needs, wants, nil
}
