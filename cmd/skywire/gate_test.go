package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// pkg is what go list says of a package of this module, or of one that a package of ours imports.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Standard   bool
	Module     *struct{ Path string }
}

const module = "skywire"

// ours lists the packages of the module as a Linux build sees them, keyed by their path without the module.
var ours = sync.OnceValues(func() (map[string]*pkg, error) {
	c := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", module+"/...")
	c.Env = append(os.Environ(), "GOOS=linux", "GOFLAGS=-buildvcs=false")
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	all := map[string]*pkg{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if len(p.GoFiles) > 0 {
			all[short(p.ImportPath)] = &p
		}
	}
})

func short(path string) string { return strings.TrimPrefix(path, module+"/") }

func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	all, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestImportTable holds every package to the line it has in testdata/imports.txt. Changing a line is a change of design:
// argue it in the commit. A line names all packages of ours that the package imports, no more and no fewer.
func TestImportTable(t *testing.T) {
	t.Parallel()
	table := readTable(t, "testdata/imports.txt")
	all := packages(t)
	for name, p := range all {
		want, listed := table[name]
		if !listed {
			t.Errorf("%s is not in the table", name)
		}
		var got []string
		for _, i := range p.Imports {
			if strings.HasPrefix(i, module+"/") {
				got = append(got, short(i))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s imports other packages than the table says; as it is now its line would be\n%s: %s", name, name, strings.Join(got, " "))
		}
	}
	for name := range table {
		if all[name] == nil {
			t.Errorf("the table has %s, which does not exist", name)
		}
	}
}

// TestDirections holds the rules that the table itself must obey (DESIGN 11): who may never know whom.
func TestDirections(t *testing.T) {
	t.Parallel()
	rules := []struct {
		from  string   // a package or, with a slash at the end, a folder
		allow []string // all that it may import of ours, besides its own folder
	}{
		{"signal", nil},
		{"signal/", nil},
		{"mesh/", []string{"mesh/", "signal"}},
		{"tun/", []string{"mesh/app", "mesh/key", "signal"}},
		{"tun", []string{"mesh/app", "mesh/key"}},
		{"socks/", []string{"mesh/app", "mesh/key", "signal"}},
		{"socks", []string{"mesh/app", "mesh/key"}},
		{"supervisor/", []string{"signal", "signal/"}},
		{"supervisor", []string{"signal", "signal/"}},
		{"mesh/wire", []string{"mesh/field", "mesh/key"}},
		{"mesh/key", nil},
		{"mesh/session", []string{"mesh/key", "mesh/wire"}},
		{"mesh/route", []string{"mesh/key", "mesh/wire"}},
		{"mesh/app", []string{"mesh/key", "signal"}},
		{"packaging/update", []string{"mesh/app", "mesh/key", "mesh/link/wss"}}, // wss: its reading of an HTTP head
		{"cmd/internal/applet", []string{"mesh/app", "signal"}},
	}
	for name, p := range packages(t) {
		for _, r := range rules {
			if !matches(r.from, name) {
				continue
			}
			for _, i := range p.Imports {
				i, own := strings.CutPrefix(i, module+"/")
				root, _, _ := strings.Cut(name, "/")
				switch {
				case !own, slices.ContainsFunc(r.allow, func(a string) bool { return matches(a, i) }):
				case root != "mesh" && root != "cmd" && (i == root || strings.HasPrefix(i, root+"/")): // its own folder
				default:
					t.Errorf("%s imports %s: %s may import %v", name, i, r.from, r.allow)
				}
			}
		}
	}
}

func matches(pattern, name string) bool {
	return pattern == name || strings.HasSuffix(pattern, "/") && strings.HasPrefix(name, pattern)
}

// TestSoleImporters: a dangerous or heavy package has one place of ours that knows it (testdata/importers.txt). Every
// module that is not ours must be in the file, and every place in it must be real.
func TestSoleImporters(t *testing.T) {
	t.Parallel()
	table := readTable(t, "testdata/importers.txt")
	used := map[string][]string{}
	for name, p := range packages(t) {
		for _, i := range p.Imports {
			if strings.HasPrefix(i, module+"/") {
				continue
			}
			key := heldBy(table, i)
			if key == "" {
				if strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
					t.Errorf("%s imports %s, which no line of the table has", name, i)
				}
				continue
			}
			if !slices.Contains(used[key], name) {
				used[key] = append(used[key], name)
			}
			if !slices.Contains(table[key], name) {
				t.Errorf("%s imports %s; only %v may", name, i, table[key])
			}
		}
	}
	for key, places := range table {
		for _, p := range places {
			if !slices.Contains(used[key], p) {
				t.Errorf("the table lets %s import %s, which it does not", p, key)
			}
		}
	}
}

// heldBy returns the longest line of the table that covers the import path.
func heldBy(table map[string][]string, path string) string {
	best := ""
	for key := range table {
		if (path == key || strings.HasPrefix(path, key+"/") && strings.Contains(key, ".")) && len(key) > len(best) {
			best = key
		}
	}
	return best
}

// readTable reads lines "name: word word"; # begins a comment.
func readTable(t *testing.T, path string) map[string][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := map[string][]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		if !ok || table[strings.TrimSpace(name)] != nil {
			t.Fatalf("%s: bad or double line %q", path, line)
		}
		table[strings.TrimSpace(name)] = append([]string{}, strings.Fields(rest)...)
	}
	return table
}

// TestPackageComments: exactly one file of a package carries the comment, it touches the clause, and it says purpose
// and limits in at least two lines.
func TestPackageComments(t *testing.T) {
	t.Parallel()
	for name, p := range packages(t) {
		var with []string
		for _, f := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc == nil || strings.TrimSpace(file.Doc.Text()) == "" {
				continue
			}
			with = append(with, f)
			if n := strings.Count(file.Doc.Text(), "\n"); n < 2 {
				t.Errorf("%s/%s: the package comment has %d line; say what the package is for and what it does not do", name, f, n)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s: package comment in %d files %v, want exactly one", name, len(with), with)
		}
	}
}

// forbidden are things that only some places may do (applet/doc.go says why).
var forbidden = []struct {
	what  *regexp.Regexp
	allow []string // files, or folders with a slash at the end
}{
	{regexp.MustCompile(`^os\.Exit$`), []string{"cmd/skywire/main.go", "cmd/demo/"}},
	{regexp.MustCompile(`^signal\.(Notify|NotifyContext|Ignore|Reset)$`), []string{
		"cmd/skywire/main.go", "cmd/demo/", "cmd/internal/lab/user_linux.go",
		"cmd/internal/applets/viscript_unix.go", // SIGCHLD: to look is all, nothing is taken from others; SIGHUP is nobody else's
	}},
	{regexp.MustCompile(`^flag\.(CommandLine|Parse|Args|Arg|String|Int|Bool|Var|Duration)$`), nil},
	{regexp.MustCompile(`^log\.(Fatal|Panic|SetOutput|SetFlags)`), nil},
	{regexp.MustCompile(`^slog\.SetDefault$`), []string{"cmd/skywire/main.go"}},
	{regexp.MustCompile(`^time\.Sleep$`), nil},
	{regexp.MustCompile(`^os\.(Setenv|Unsetenv|Chdir)$`), []string{"cmd/skywire/main.go", "signal/auto/"}}, // auto takes its token out of sight of children
	{regexp.MustCompile(`^(syscall|unix)\.(Umask|Setrlimit|Chdir)$`), nil},
	{regexp.MustCompile(`^runtime\.GOMAXPROCS$`), []string{"cmd/skywire/main.go"}},
	{regexp.MustCompile(`^debug\.(SetGCPercent|SetMemoryLimit)$`), []string{"cmd/skywire/main.go"}},
	{regexp.MustCompile(`^http\.(DefaultServeMux|Handle|HandleFunc|ListenAndServe)$`), nil},
}

// TestProcessWideState reads every source file that is not a test for what belongs to main alone, for init functions
// and for functions and files past the hard limits.
func TestProcessWideState(t *testing.T) {
	t.Parallel()
	for name, p := range packages(t) {
		for _, f := range p.GoFiles {
			checkFile(t, name+"/"+f, filepath.Join(p.Dir, f))
		}
	}
}

func checkFile(t *testing.T, name, path string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if n := set.Position(file.End()).Line; n > 800 {
		t.Errorf("%s has %d lines, the hard limit is 800", name, n)
	}
	if n := set.Position(file.End()).Line; name == "cmd/skywire/main.go" && n > 45 {
		t.Errorf("%s has %d lines: main holds the process's state and nothing else", name, n)
	}
	imported := map[string]string{} // local name → path
	for _, i := range file.Imports {
		full := strings.Trim(i.Path.Value, `"`)
		local := full[strings.LastIndex(full, "/")+1:]
		if i.Name != nil {
			local = i.Name.Name
		}
		imported[local] = full
	}
	if imported["flag"] == "flag" && !strings.HasPrefix(name, "cmd/") && !strings.HasPrefix(name, "supervisor/cli/") {
		t.Errorf("%s imports flag", name)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" && !strings.HasPrefix(name, "signal/auto/") {
				t.Errorf("%s: func init", set.Position(n.Pos()))
			}
			if l := set.Position(n.End()).Line - set.Position(n.Pos()).Line; l > 100 && !strings.Contains(n.Doc.Text(), "in one piece") {
				t.Errorf("%s: %s has %d lines; the hard limit is 100 (a table or an owner loop says in its comment why it is in one piece)",
					set.Position(n.Pos()), n.Name.Name, l)
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok || imported[x.Name] == "" || strings.HasPrefix(imported[x.Name], module+"/") {
				break
			}
			for _, rule := range forbidden {
				if rule.what.MatchString(x.Name+"."+n.Sel.Name) && !slices.ContainsFunc(rule.allow, func(a string) bool { return matches(a, name) }) {
					t.Errorf("%s: %s.%s", set.Position(n.Pos()), x.Name, n.Sel.Name)
				}
			}
		}
		return true
	})
}

// TestLogKeys: the keys of log lines come from the list in mesh/doc.go, and the list has no others.
func TestLogKeys(t *testing.T) {
	t.Parallel()
	all := packages(t)
	_, list, ok := strings.Cut(read(t, filepath.Join(all["mesh"].Dir, "doc.go")), "a test reads it:\n")
	if !ok {
		t.Fatal("mesh/doc.go has no list of keys")
	}
	known := map[string]bool{}
	for _, k := range strings.Fields(strings.ReplaceAll(strings.TrimSuffix(strings.TrimSpace(list), "package mesh"), "//", "")) {
		known[k] = false
	}
	for name, p := range all {
		for _, f := range p.GoFiles {
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, f), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range logKeys(file) {
				if _, ok := known[k]; !ok {
					t.Errorf("%s/%s logs %q, which the list in mesh/doc.go does not have", name, f, k)
				}
				known[k] = true
			}
		}
	}
	for k, used := range known {
		if !used {
			t.Errorf("no log line has %q of the list in mesh/doc.go", k)
		}
	}
}

// logKeys finds x.Debug("text", "key", value, …), the other levels, and x.With("key", value, …).
func logKeys(file *ast.File) (keys []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		args := call.Args
		switch sel.Sel.Name {
		case "Debug", "Info", "Warn", "Error":
			if len(args) == 0 || literal(args[0]) == "" {
				return true
			}
			args = args[1:]
		case "With":
		default:
			return true
		}
		for i := 0; i+1 < len(args); i += 2 {
			if k := literal(args[i]); k != "" {
				keys = append(keys, k)
			}
		}
		return true
	})
	return keys
}

// literal is the text of a string literal, else "".
func literal(e ast.Expr) string {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	return strings.Trim(l.Value, "`\"")
}

// TestEveryParserIsFuzzed: an exported Parse function has a Fuzz test in its package that calls it (STYLE 33).
func TestEveryParserIsFuzzed(t *testing.T) {
	t.Parallel()
	declared := regexp.MustCompile(`(?m)^func (Parse\w*)\(`)
	for name, p := range packages(t) {
		if !strings.HasPrefix(name, "mesh/") && !strings.HasPrefix(name, "socks") && !strings.HasPrefix(name, "signal") {
			continue
		}
		tests := ""
		files, err := filepath.Glob(filepath.Join(p.Dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			tests += read(t, f)
		}
		for _, f := range p.GoFiles {
			for _, m := range declared.FindAllStringSubmatch(read(t, filepath.Join(p.Dir, f)), -1) {
				if !strings.Contains(tests, m[1]) || !strings.Contains(tests, "func Fuzz") {
					t.Errorf("%s.%s has no fuzz test", name, m[1])
				}
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
