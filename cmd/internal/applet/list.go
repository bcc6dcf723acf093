package applet

import (
	"strings"
)

// ListVar defines a repeatable flag over p, whose values so far are the default. The first use on the command line
// replaces the default.
func (f *Flags) ListVar(p *[]string, name, usage string) {
	f.Var(&listValue{p: p}, name, usage)
}

type listValue struct {
	p   *[]string
	set bool
}

func (v *listValue) String() string {
	if v == nil || v.p == nil {
		return ""
	}
	return strings.Join(*v.p, ", ")
}

func (v *listValue) Set(s string) error {
	if !v.set {
		*v.p, v.set = nil, true
	}
	*v.p = append(*v.p, s)
	return nil
}
