//go:build unix

package update

import "testing"

// TestRunLeavesDaemon: a script that started a daemon and ended well has ended well, though the daemon keeps its output open.
func TestRunLeavesDaemon(t *testing.T) {
	t.Parallel()
	if out, err := Run(t.Context(), "sh", "-c", "sleep 5 & echo started"); err != nil || out != "started" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := Run(t.Context(), "sh", "-c", "sleep 5 & exit 3"); err == nil {
		t.Error("a script that failed has not")
	}
}
