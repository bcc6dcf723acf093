package wire

import (
	"flag"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the vectors into SPEC.md")

func source(t *testing.T, dir string) (*token.FileSet, []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return fset, files
}

// constants are the exported number constants of a package's code, by name. Imports are not resolved: what they
// give to a constant must be in this package.
func constants(t *testing.T) map[string]int64 {
	t.Helper()
	fset, files := source(t, ".")
	var code []*ast.File
	for _, f := range files {
		if !strings.HasSuffix(fset.Position(f.Pos()).Filename, "_test.go") {
			code = append(code, f)
		}
	}
	config := types.Config{Error: func(error) {}, Importer: nothing{}}
	pkg, _ := config.Check("wire", fset, code, nil) // errors of the missing imports are expected
	all := map[string]int64{}
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if ok && c.Exported() && c.Val().Kind() == constant.Int {
			all[name], _ = constant.Int64Val(c.Val())
		}
	}
	return all
}

type nothing struct{}

func (nothing) Import(string) (*types.Package, error) { return nil, os.ErrNotExist }

// Each constant stands in SPEC.md with its value, and each row of SPEC.md's tables is a constant: of this package,
// or of mesh/session, whose test looks at those.
func TestSpecHasTheConstants(t *testing.T) {
	t.Parallel()
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*) \\|").FindAllStringSubmatch(string(spec), -1) {
		if _, ok := rows[m[1]]; ok {
			t.Errorf("SPEC.md has %s twice", m[1])
		}
		rows[m[1]] = strings.TrimSpace(m[2])
	}
	all := constants(t)
	if len(all) < 90 {
		t.Fatalf("only %d constants found", len(all))
	}
	for name, v := range all {
		got, err := strconv.ParseInt(rows[name], 0, 64)
		if err != nil || got != v {
			t.Errorf("%s is %d (%#x), SPEC.md has %q", name, v, v, rows[name])
		}
	}
	_, session := source(t, "../session")
	names := map[string]bool{}
	for _, f := range session {
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok {
				for _, name := range v.Names {
					names[name.Name] = true
				}
			}
			return true
		})
	}
	for name := range rows {
		if _, ok := all[name]; !ok && !names[name] {
			t.Errorf("SPEC.md has %s, the code has not", name)
		}
	}
}

func TestEveryParserIsFuzzed(t *testing.T) {
	t.Parallel()
	_, files := source(t, ".")
	parsers, targets := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			if name, ok := strings.CutPrefix(fn.Name.Name, "Parse"); ok {
				parsers[name] = true
			}
			if name, ok := strings.CutPrefix(fn.Name.Name, "Fuzz"); ok {
				targets[name] = true
			}
		}
	}
	for name := range parsers {
		if !targets[name] {
			t.Errorf("Parse%s has no fuzz target", name)
		}
	}
	if len(parsers) < 40 {
		t.Errorf("only %d parsers found", len(parsers))
	}
}

func TestVectors(t *testing.T) {
	var b strings.Builder
	for _, s := range samples(t) {
		fmt.Fprintf(&b, "    %-14s %x\n", s.name, s.bytes)
	}
	id := setup(t).Core.ID()
	bind := setup(t).Core.Bind()
	fmt.Fprintf(&b, "    %-14s %x\n    %-14s %x\n", "path id", id, "bind", bind)
	compareVectors(t, "layouts", b.String())
}

func compareVectors(t *testing.T, section, want string) {
	t.Helper()
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(spec), "<!-- "+section+": ")
	comment, rest, ok2 := strings.Cut(rest, "-->\n")
	got, tail, ok3 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("SPEC.md has no section of vectors %q", section)
	}
	want = "\n" + want + "\n"
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("the vectors in SPEC.md are not what the code makes; if the change is meant, run with -update\n%s", want)
	}
	out := head + "<!-- " + section + ": " + comment + "-->\n" + want + "<!-- end -->" + tail
	if err := os.WriteFile("SPEC.md", []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
}
