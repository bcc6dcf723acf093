package proc

import (
	"os"

	"github.com/creack/pty"
)

// OpenTTY makes a terminal: the side that viscript holds, and the one that is the program's. When the first is closed, by
// the death of viscript too, the program is hung up.
func OpenTTY() (ours, theirs *os.File, err error) { return pty.Open() }

// ResizeTTY tells a terminal, and with SIGWINCH its program, how large it is.
func ResizeTTY(ours *os.File, columns, rows uint16) error {
	return pty.Setsize(ours, &pty.Winsize{Cols: columns, Rows: rows})
}
