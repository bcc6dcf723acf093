// Package proc starts child processes and keeps hold of everything that comes from them: the tree of an app. It finds
// the members of a tree, signals them, ends them, and counts what they use.
//
// It does not decide when to start or stop (supervisor does) and reads no configuration. Rules: children are waited
// for by their number, never with wait4(-1), which would steal the children of other applets in this process; a number
// alone names nobody, so every process is (pid, start time); a process belongs to a tree by any of: cgroup, descent,
// session, process group, having been seen in it before, or the launch mark in its environment. On systems other than
// Linux a tree is the child's process group, on Windows its job, which nothing leaves and which ends with viscript.
package proc

import (
	"os"
	"time"
)

// MarkVariable is the environment variable that marks what comes from a launch, for those who escape descent, session
// and group at once where there is no cgroup.
const MarkVariable = "VISCRIPT_LAUNCH"

// killLimit bounds how long Kill tries: what is left then hangs in the kernel.
const killLimit = 5 * time.Second

// scanEvery is how often a tree that is asked to end is looked at.
const scanEvery = 20 * time.Millisecond

// Spec is a program to start.
type Spec struct {
	Path   string   // the program
	Args   []string // with argv[0]
	Env    []string
	Dir    string
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
	TTY    bool       // Stdin is a terminal, and becomes its controlling one
	Extra  []*os.File // from descriptor 3 on; nil ones stay closed
	Mark   string     // unique to the launch; added to Env as MarkVariable
	User   *User      // nil: as this process
	// Caps are all the capabilities that it, and what it starts, may have, by number (capabilities(7)); nil: as User
	// has them. They are given to a user other than root, too.
	Caps       []int
	NoNewPrivs bool // set-user-id bits and file capabilities of programs give it nothing
	Limits     Limits
}

// User is who a program runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32
}

// Limits are what the kernel holds a tree to; 0 is no limit.
type Limits struct {
	Memory uint64  // bytes
	PIDs   int     // processes and threads
	CPU    float64 // percent of one CPU
	Files  int     // open descriptors, of each process
	Nice   int
}

// Exit is how a process ended.
type Exit struct {
	Code   *int   `json:"code,omitempty"`   // nil: ended by a signal, or unknown
	Signal string `json:"signal,omitempty"` // "KILL", …
	Core   bool   `json:"core,omitempty"`
	OOM    bool   `json:"oom,omitempty"` // killed by the kernel for want of memory
	// Unknown: not our child (adopted), so nobody told.
	Unknown bool `json:"unknown,omitempty"`
}

// OK reports a clean end.
func (e Exit) OK() bool { return e.Code != nil && *e.Code == 0 }

// Usage is what a tree uses at one moment. A nil field is unknown here.
type Usage struct {
	Processes int
	Threads   int
	CPUUser   time.Duration
	CPUSys    time.Duration
	RSS       *uint64
	PSS       *uint64
	FDs       *int
	IORead    *uint64
	IOWrite   *uint64
	Source    string // where CPU and memory come from: "proc" or "cgroup2+proc"
}

// ID names a process for ever: the number and, in clock ticks since boot, when it started.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}
