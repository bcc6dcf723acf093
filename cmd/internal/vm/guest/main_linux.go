// Command guest is what cmd/internal/vm boots: the first process of a machine without a disk, and the check that runs on it.
// As process 1 it mounts what a system needs, loads the modules of /modules and hands over to skywire viscript, which
// starts the check as an app; the check builds three computers out of namespaces, runs the daemons on two of them and
// says what it sees. With "share" on the kernel's command line it changes into the host's root instead, with all writes
// in memory, and runs /script there.
//
// It proves nothing by itself: it says facts and errors on the console, one JSON object a line after vm.Mark, and the test
// that booted it decides. Then it switches the machine off.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

const (
	skywire = "/bin/skywire"
	busybox = "/bin/busybox"
	self    = "/init"
	mark    = "@vm " // vm.Mark: this program is kept from what it does not need
	limit   = 4 * time.Minute
)

func main() {
	if os.Getpid() == 1 {
		boot()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if len(os.Args) < 2 {
		return
	}
	switch args := os.Args[2:]; os.Args[1] {
	case "check":
		check(ctx)
	case "serve":
		answer(serve(ctx, args))
	case "fetch":
		answer(fetch(ctx, args))
	}
}

// say writes facts to the console, for the test outside.
func say(fact string, values map[string]any) {
	values["fact"] = fact
	b, err := json.Marshal(values)
	if err != nil {
		b = fmt.Appendf(nil, `{"fact":"error","error":%q}`, err)
	}
	tell(string(b))
}

// tell writes one line to the console in one piece, so that no message of the kernel gets between.
func tell(line string) {
	f, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return // nobody is there to be told
	}
	defer f.Close()
	_, _ = f.WriteString("\n" + mark + line + "\n")
}
