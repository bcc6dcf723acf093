package supervisor

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What truthApp uses; a tenth of a second and 1 MiB more or less are within the 5 %.
const (
	truthCPU   = 2 * time.Second         // less where SHORT is set: the machine is not only ours
	truthShort = 1500 * time.Millisecond // six times of 10 ms are cut off in /proc
	truthAnon  = 64 << 20
	truthFiles = 100
	truthWrite = 10 << 20
)

// truthApp is an app that knows what it and its children use, and says so in one line when nothing changes any more: one
// child has ended by then, one lives.
func truthApp() {
	cpu := truthCPU
	if os.Getenv("SHORT") != "" {
		cpu = truthShort
	}
	if len(os.Args) > 1 {
		burn(cpu / 4)
		if os.Args[1] == "stays" {
			fmt.Println("burnt")
			time.Sleep(time.Hour)
		}
		os.Exit(0)
	}
	if os.Getenv("TRUTH_SECRET") != "" { // what may not be dumped is closed to all but root
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			panic(err)
		}
	}
	child := func(word string) *exec.Cmd {
		c := exec.Command(os.Args[0], word)
		c.Stderr = os.Stderr
		return c
	}
	if err := child("ends").Run(); err != nil {
		panic(err)
	}
	stays := child("stays")
	out, _ := stays.StdoutPipe()
	if err := stays.Start(); err != nil {
		panic(err)
	}
	out.Read(make([]byte, 10)) // it has burnt
	b, err := unix.Mmap(-1, 0, truthAnon, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	for range truthFiles {
		f, err := os.Open(os.DevNull)
		if err != nil {
			panic(err)
		}
		defer f.Close()
	}
	f, err := os.CreateTemp("", "truth")
	if err != nil {
		panic(err)
	}
	os.Remove(f.Name())
	for range truthWrite / (64 << 10) {
		f.Write(b[:64<<10])
	}
	var ru unix.Rusage
	unix.Getrusage(unix.RUSAGE_CHILDREN, &ru)
	burn(cpu - cpu/4 - time.Duration(ru.Utime.Nano()+ru.Stime.Nano()))
	fmt.Println("done")
	time.Sleep(time.Hour)
}

// burn computes until this process has used so much CPU.
func burn(most time.Duration) {
	for x := 1.0; ; {
		var ru unix.Rusage
		if unix.Getrusage(unix.RUSAGE_SELF, &ru); time.Duration(ru.Utime.Nano()+ru.Stime.Nano()) >= most {
			return
		}
		for range 100000 {
			x = math.Sqrt(x + 1)
		}
	}
}

// TestUsageAgainstTruth is T-S5: what ru says of a tree is what the tree has used, within 5 %.
func TestUsageAgainstTruth(t *testing.T) {
	t.Parallel()
	everywhere(t, "apps: {truth: {path: SELF, env: {SUPERVISOR_TEST_APP: truth}, daemon: true}}\n", func(t *testing.T, w *world, where string) {
		cpu := truthCPU
		if where != "cgroup" {
			cpu = truthShort
			text, err := os.ReadFile(w.config.File)
			if err != nil {
				t.Fatal(err)
			}
			w.write(strings.Replace(string(text), "env: {", "env: {SHORT: yes, ", 1))
			if err := asked(t.Context(), w.config.RunDir, "viscript.reload", nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		r := w.truth()
		near(t, "CPU", *r.CPUUser+*r.CPUSys, cpu.Seconds())
		near(t, "bytes written", float64(*r.IOWrite), truthWrite)
		if *r.Processes != 2 || r.Source == "" {
			t.Errorf("%d processes, source %q", *r.Processes, r.Source)
		}
		var rss, pss, fds, threads int
		for _, pid := range w.ofRun() {
			rss += inStatus(t, "/proc/"+pid+"/status", "VmRSS:") << 10
			pss += inStatus(t, "/proc/"+pid+"/smaps_rollup", "Pss:") << 10
			threads += inStatus(t, "/proc/"+pid+"/status", "Threads:")
			list, _ := os.ReadDir("/proc/" + pid + "/fd")
			fds += len(list)
			if inStatus(t, "/proc/"+pid+"/status", "PPid:") == r.PID {
				continue
			}
			if anon := inStatus(t, "/proc/"+pid+"/status", "RssAnon:") << 10; anon < truthAnon {
				t.Errorf("the app has %d bytes of its own", anon)
			}
		}
		near(t, "RSS", float64(*r.RSS), float64(rss))
		near(t, "PSS", float64(*r.PSS), float64(pss))
		near(t, "descriptors", float64(*r.FDs), float64(fds))
		near(t, "threads", float64(*r.Threads), float64(threads))
		if fds < truthFiles || *r.RSS < truthAnon {
			t.Errorf("%d descriptors, %d bytes: the app does not do what it should", fds, *r.RSS)
		}
		t.Logf("%s: CPU %.3f s of %v, RSS %d of %d, PSS %d of %d, written %d of %d, descriptors %d of %d; source %s", where,
			*r.CPUUser+*r.CPUSys, cpu, *r.RSS, rss, *r.PSS, pss, *r.IOWrite, truthWrite, *r.FDs, fds, r.Source)
	})
}

// TestUsageMasked: what this kernel does not tell, or tells others only, is null and not 0; the rest stays right.
func TestUsageMasked(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	tests := []struct {
		name, env string
		place     place
		files     bool // their number is hidden, too
	}{
		{"no such files", "", places[1], false},
		{"not for this user", ", TRUTH_SECRET: yes", places[2], true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "apps: {truth: {path: SELF, env: {SUPERVISOR_TEST_APP: truth, SHORT: yes"+tt.env+"}, daemon: true}}\n")
			d := w.daemonBy(tt.place.command(w))
			t.Cleanup(func() {
				d.Process.Kill()
				d.Wait()
			})
			eventually(t, func() error { return asked(t.Context(), w.config.RunDir, "viscript.status", nil, nil) })
			r := w.truth()
			if tt.place.name == "no cgroup" { // as on OpenWrt, where the kernel has neither file
				for _, pid := range w.ofRun() {
					for _, f := range []string{"smaps_rollup", "io"} {
						at := "/proc/" + pid + "/" + f
						if out, err := exec.Command("nsenter", "-m", "-t", strconv.Itoa(d.Process.Pid), "mount", "--bind", "/dev/null", at).CombinedOutput(); err != nil {
							t.Skipf("mount over %s: %v: %s", at, err, out)
						}
					}
				}
				r = w.ru()
			}
			near(t, "CPU", *r.CPUUser+*r.CPUSys, truthShort.Seconds())
			if r.PSS != nil || r.IORead != nil || r.IOWrite != nil || (r.FDs == nil) != tt.files {
				t.Errorf("%+v", r)
			}
			if *r.RSS < truthAnon || *r.Processes != 2 {
				t.Errorf("%+v", r)
			}
			b, _ := json.Marshal(r)
			if !strings.Contains(string(b), `"pss_bytes":null`) || !strings.Contains(string(b), `"io_write_bytes":null`) {
				t.Errorf("%s", b)
			}
		})
	}
}

// truth starts the app and returns what ru says when it says that nothing changes any more.
func (w *world) truth() Resources {
	w.t.Helper()
	if err := asked(w.t.Context(), w.config.RunDir, "viscript.start", params{App: "truth"}, nil); err != nil {
		w.t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var lines []Line
		err := asked(w.t.Context(), w.config.RunDir, "viscript.logs", params{ID: "truth"}, &lines)
		if err == nil && len(lines) > 0 && lines[len(lines)-1].Text == "done" {
			return w.ru()
		}
		if time.Now().After(end) {
			w.t.Fatalf("%v, %v", lines, err)
		}
	}
}

func (w *world) ru() (r Resources) {
	w.t.Helper()
	if err := asked(w.t.Context(), w.config.RunDir, "viscript.ru", params{ID: "truth"}, &r); err != nil {
		w.t.Fatal(err)
	}
	return r
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.05*want {
		t.Errorf("%s: ru says %v, the truth is %v", what, got, want)
	}
}

func inStatus(t *testing.T, path, name string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %s", name, path)
	return 0
}
