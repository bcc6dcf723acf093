package supervisor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// escapeFifty starts fifty processes that ignore TERM and leave parent, group, session, or all of them.
const escapeFifty = `trap "" TERM
i=0
while [ $i -lt 10 ]; do
  i=$((i+1))
  sleep 1000 &
  setsid sleep 1000 &
  (sleep 1000 &)
  (setsid sleep 1000 &)
  setsid sh -c "(setsid sh -c \"(setsid sleep 1000 &)\" &)" &
done
echo started
while :; do sleep 1000; done
`

// TestFiftyEscape is T-S2: stop returns when none of fifty is left, within the grace and a second, wherever viscript runs.
func TestFiftyEscape(t *testing.T) {
	t.Parallel()
	const grace = 400 * time.Millisecond
	yaml := fmt.Sprintf("apps:\n  bomb: {path: /bin/sh, default_args: [-c, %q], stop_timeout: %g, restart: never}\n", escapeFifty, grace.Seconds())
	everywhere(t, yaml, func(t *testing.T, w *world, _ string) {
		fastest := time.Hour
		for try := 0; try < 5 && fastest > grace+time.Second; try++ { // on a loaded machine
			if err := asked(t.Context(), w.config.RunDir, "viscript.start", params{App: "bomb"}, nil); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				if n := len(w.ofRun()); n < 52 {
					return fmt.Errorf("%d processes", n)
				}
				return nil
			})
			begin := time.Now()
			var it Item
			err := asked(t.Context(), w.config.RunDir, "viscript.stop", params{ID: "bomb"}, &it)
			took := time.Since(begin)
			if left := w.ofRun(); err != nil || it.State != Exited || len(left) != 0 {
				t.Fatalf("%+v, %v; %d are left: %v", it, err, len(left), left)
			}
			if took < grace {
				t.Errorf("after %v, before the grace was over, though all ignore TERM", took)
			}
			fastest = min(fastest, took)
		}
		t.Logf("52 processes gone %v after the grace", (fastest - grace).Round(time.Millisecond))
		if fastest > grace+time.Second {
			t.Errorf("took %v", fastest)
		}
	})
}

// survivor is an app of which something stays.
type survivor struct{ fake }

func (s *survivor) Stop(time.Duration, bool) error {
	return errors.New("still there after KILL: process 7 (it hangs in the kernel)")
}

// TestSurvivorIsNamed: a stop that leaves something behind is no success, and says what; nor does the end of viscript wait
// for it, or a restart run beside it.
func TestSurvivorIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		var apps []*survivor
		s := bubble(t, "apps:\n  a: {path: x, restart: always}\n", func(launch) (running, error) {
			n++
			apps = append(apps, &survivor{fake{lasts: time.Hour, stop: make(chan struct{})}})
			return apps[len(apps)-1], nil
		})
		for range 2 {
			s.mustStart(t, "a")
		}
		it, err := s.Stop(t.Context(), "1", 0)
		if err == nil || !strings.Contains(err.Error(), "still there after KILL: process 7") || it.State != Failed {
			t.Errorf("stop: %+v, %v", it, err)
		}
		if it, err := s.Restart(t.Context(), "2"); err == nil || it.State != Failed || n != 2 {
			t.Errorf("restart: %+v, %v, %d starts", it, err, n)
		}
		for _, a := range apps { // the kernel lets go in the end
			close(a.stop)
		}
	})
}
