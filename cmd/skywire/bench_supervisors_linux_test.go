//go:build bench

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// superRival is a supervisor: how it is told of apps, run, and asked to stop them.
type superRival struct {
	name    string
	needs   string   // its program
	comms   []string // names of its processes, as the kernel has them; what else runs under its mark are apps
	version func() string
	config  func(s *superRun) // writes files for s.scripts
	command func(s *superRun) []string
	stop    func(s *superRun) string // a shell line that returns when all apps have ended
}

// Apps are shell scripts; %s is the file that the app writes its number to when it runs.
const (
	quietApp    = "echo $$ >%s.new; mv %[1]s.new %[1]s; exec sleep 1000\n"
	stubbornApp = "trap '' TERM INT HUP\nsleep 1000 &\nsleep 1000 &\necho $$ >%s.new; mv %[1]s.new %[1]s\nexec sleep 1000\n"
	// A second of lines, 50 kB each millisecond, for five seconds; a program that is held back falls behind.
	floodApp = `import os, sys, time
open(%q, "w").write(str(os.getpid()))
block = (b"x" * 99 + b"\n") * 500
begin, sent = time.monotonic(), 0
while time.monotonic() - begin < 5:
    if sent <= (time.monotonic() - begin) * 50e6:
        sent += os.write(1, block)
    else:
        time.sleep(0.0005)
open(%q, "w").write("%%.1f" %% (sent / (time.monotonic() - begin) / 1e6))
time.sleep(1000)
`
)

func superRivals(binary string) []superRival {
	comm := filepath.Base(binary)
	first := func(words ...string) func() string {
		return func() string {
			out, _ := exec.Command(words[0], words[1:]...).Output()
			line, _, _ := strings.Cut(string(out), "\n")
			return strings.TrimSpace(line)
		}
	}
	deb := func(name string) func() string { return first("dpkg-query", "-W", "-f", "${Version}\n", name) }
	return []superRival{
		{
			name: "viscript", needs: binary, comms: []string{comm[:min(15, len(comm))]}, version: func() string { return "" }, config: viscriptConfig,
			command: func(s *superRun) []string {
				return []string{binary, "viscript", "run", "--headless", "--config", s.dir + "/config.yaml", "--state", s.dir + "/state", "--run", s.dir + "/run"}
			},
			stop: func(s *superRun) string { return binary + " viscript --run " + s.dir + "/run sd --all" },
		},
		{
			name: "supervisord", needs: "supervisord", comms: []string{"supervisord"}, version: first("supervisord", "--version"), config: supervisordConfig,
			command: func(s *superRun) []string { return []string{"supervisord", "-n", "-c", s.dir + "/supervisord.conf"} },
			stop:    func(s *superRun) string { return "supervisorctl -c " + s.dir + "/supervisord.conf stop all" },
		},
		{
			name: "s6", needs: "s6-svscan", comms: []string{"s6-svscan", "s6-supervise", "s6-log"}, version: deb("s6"), config: s6Config,
			command: func(s *superRun) []string { return []string{"s6-svscan", s.dir + "/scan"} },
			stop: func(s *superRun) string {
				return "cd " + s.dir + "/scan && for d in *; do s6-svc -d $d; done; s6-svwait -D -a -t 30000 *"
			},
		},
		{
			name: "runit", needs: "runsvdir", comms: []string{"runsvdir", "runsv", "svlogd"}, version: deb("runit"), config: runitConfig,
			command: func(s *superRun) []string { return []string{"runsvdir", s.dir + "/scan"} },
			stop:    func(s *superRun) string { return "sv -w 1 force-stop " + s.dir + "/scan/*" },
		},
	}
}

func viscriptConfig(s *superRun) {
	var b strings.Builder
	b.WriteString("settings: {runHeadless: true}\napps:\n")
	for _, a := range s.scripts {
		fmt.Fprintf(&b, "  %s: {path: %s, default_args: [%s], autostart: true, restart: always, stop_timeout: 1s, log: {file: %s}}\n", a.name, a.interpreter, a.path, a.log)
	}
	s.file("config.yaml", b.String())
}

func supervisordConfig(s *superRun) {
	var b strings.Builder
	fmt.Fprintf(&b, "[unix_http_server]\nfile=%[1]s/sock\n[supervisord]\nlogfile=%[1]s/supervisord.log\npidfile=%[1]s/pid\nchildlogdir=%[1]s\nminfds=2048\n"+
		"[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n[supervisorctl]\nserverurl=unix://%[1]s/sock\n", s.dir)
	for _, a := range s.scripts {
		log := a.log
		if log == "" {
			log = "NONE"
		}
		fmt.Fprintf(&b, "[program:%s]\ncommand=%s %s\nautorestart=true\nstopwaitsecs=1\nstopasgroup=true\nkillasgroup=true\nstdout_logfile=%s\n"+
			"stdout_logfile_maxbytes=1MB\nstdout_logfile_backups=1\n", a.name, a.interpreter, a.path, log)
	}
	s.file("supervisord.conf", b.String())
}

func s6Config(s *superRun) {
	for _, a := range s.scripts {
		s.file("scan/"+a.name+"/run", "#!/bin/sh\nexec "+a.interpreter+" "+a.path+"\n")
		s.file("scan/"+a.name+"/timeout-kill", "1000\n")
		if a.log != "" {
			s.file("scan/"+a.name+"/log/run", "#!/bin/sh\nexec s6-log n1 s1000000 "+a.log+"\n")
		}
	}
}

func runitConfig(s *superRun) {
	for _, a := range s.scripts {
		s.file("scan/"+a.name+"/run", "#!/bin/sh\nexec "+a.interpreter+" "+a.path+"\n")
		if a.log != "" {
			s.file("scan/"+a.name+"/log/run", "#!/bin/sh\nexec svlogd "+a.log+"\n")
			s.file(strings.TrimPrefix(a.log, s.dir+"/")+"/config", "s1000000\nn1\n")
		}
	}
}

// superScript is one app.
type superScript struct {
	name, interpreter, path, log, upFile string
}

// superRun is a rival with its apps in a folder of its own.
type superRun struct {
	b       *superBench
	rival   superRival
	dir     string
	scripts []superScript
	process *exec.Cmd
}

// superMark is in the environment of a rival and of all that comes from it.
const superMark = "SKYWIRE_BENCH_MARK"

func (b *superBench) begin(r superRival, what string) *superRun {
	b.t.Helper()
	base := "/run" // in RAM, where supervisors keep their sockets and pipes
	if f, err := os.CreateTemp(base, "viscript-bench"); err != nil {
		base = ""
	} else {
		f.Close()
		os.Remove(f.Name())
	}
	dir, err := os.MkdirTemp(base, "viscript-bench-"+strings.ReplaceAll(what, " ", "-"))
	if err != nil {
		b.t.Fatal(err)
	}
	s := &superRun{b: b, rival: r, dir: dir}
	b.t.Cleanup(func() {
		s.end()
		os.RemoveAll(dir)
	})
	return s
}

func (s *superRun) file(name, text string) {
	path := filepath.Join(s.dir, name)
	mode := os.FileMode(0o644)
	if filepath.Base(name) == "run" {
		mode = 0o755
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err != nil {
		s.b.t.Fatal(err)
	}
}

// apps makes n apps of a script and tells the rival of them.
func (s *superRun) apps(n int, script string) {
	s.scripts = nil
	for i := range n {
		name := fmt.Sprintf("a%d", i)
		a := superScript{name: name, interpreter: "/bin/sh", path: filepath.Join(s.dir, name+".sh"), upFile: filepath.Join(s.dir, "up", name)}
		s.file(name+".sh", fmt.Sprintf(script, a.upFile))
		s.scripts = append(s.scripts, a)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "up"), 0o755); err != nil {
		s.b.t.Fatal(err)
	}
	s.rival.config(s)
}

func (s *superRun) floods() {
	a := superScript{
		name: "flood", interpreter: "/usr/bin/python3", path: filepath.Join(s.dir, "flood.py"), upFile: filepath.Join(s.dir, "up", "flood"),
		log: filepath.Join(s.dir, "log"),
	}
	s.file("flood.py", fmt.Sprintf(floodApp, a.upFile, filepath.Join(s.dir, "rate")))
	s.scripts = []superScript{a}
	if err := os.MkdirAll(filepath.Join(s.dir, "up"), 0o755); err != nil {
		s.b.t.Fatal(err)
	}
	s.rival.config(s)
}

// run starts the supervisor.
func (s *superRun) run() {
	words := s.rival.command(s)
	c := exec.Command(words[0], words[1:]...)
	c.Env = append(os.Environ(), superMark+"="+s.dir)
	c.Dir = s.dir
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		s.b.t.Fatal(err)
	}
	go c.Wait() //nolint:errcheck // its end is not what is measured
	s.process = c
}

// up waits until n apps have said that they run.
func (s *superRun) up(n int) {
	s.b.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		have := 0
		for _, a := range s.scripts {
			if _, err := os.Stat(a.upFile); err == nil {
				have++
			}
		}
		if have >= n {
			return
		}
		s.pause(2 * time.Millisecond)
	}
	s.b.t.Fatalf("%s: %d apps did not start within a minute", s.rival.name, n)
}

func (s *superRun) pids(n int) []int {
	pids := make([]int, n)
	for i := range n {
		text, _ := os.ReadFile(s.scripts[i].upFile)
		pids[i], _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	return pids
}

func (s *superRun) settle()               { s.pause(2 * time.Second) }
func (s *superRun) pause(d time.Duration) { time.Sleep(d) }

// crash kills an app and returns how long its successor took to come.
func (s *superRun) crash(i int) time.Duration {
	s.b.t.Helper()
	pid := s.pids(i + 1)[i]
	if err := os.Remove(s.scripts[i].upFile); err != nil {
		s.b.t.Fatal(err)
	}
	at := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.b.t.Fatal(err)
	}
	for time.Since(at) < 30*time.Second {
		if _, err := os.Stat(s.scripts[i].upFile); err == nil {
			return time.Since(at)
		}
		s.pause(200 * time.Microsecond)
	}
	s.b.t.Fatalf("%s did not start a crashed app again", s.rival.name)
	return 0
}

// superProcess is a process under the mark of a run.
type superProcess struct {
	pid  int
	comm string
}

// marked finds the processes of this run that want likes.
func (s *superRun) marked(want func(comm string) bool) (all []superProcess) {
	mark := []byte(superMark + "=" + s.dir + "\x00")
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile("/proc/" + d.Name() + "/environ")
		if err != nil || !bytes.Contains(append(env, 0), mark) {
			continue
		}
		comm, _ := os.ReadFile("/proc/" + d.Name() + "/comm")
		if p := (superProcess{pid, strings.TrimSpace(string(comm))}); want(p.comm) {
			all = append(all, p)
		}
	}
	return all
}

// own are the processes of the supervisor itself, its loggers among them.
func (s *superRun) own() []superProcess {
	return s.marked(func(comm string) bool {
		for _, c := range s.rival.comms {
			if c == comm {
				return true
			}
		}
		return false
	})
}

// cpu is what the supervisor has used, by the scheduler's own count.
func (s *superRun) cpu() (sum time.Duration) {
	for _, p := range s.own() {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid))
		for _, f := range tasks {
			text, _ := os.ReadFile(f)
			ns, _, _ := strings.Cut(string(text), " ")
			n, _ := strconv.ParseInt(ns, 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}

// memory is what the supervisor holds, in MB.
func (s *superRun) memory() (rss, pss float64, processes int) {
	for _, p := range s.own() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
		for line := range strings.SplitSeq(string(text), "\n") {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			kb, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "Rss:":
				rss += kb * 1024 / 1e6
			case "Pss:":
				pss += kb * 1024 / 1e6
			}
		}
		processes++
	}
	return rss, pss, processes
}

func (s *superRun) flooded() bool {
	_, err := os.Stat(filepath.Join(s.dir, "rate"))
	return err == nil
}

func (s *superRun) floodRate() string {
	s.pause(10 * time.Millisecond) // until it is written in full
	text, _ := os.ReadFile(filepath.Join(s.dir, "rate"))
	return string(text)
}

// onDisk is how long the log is, with its older pieces.
func (s *superRun) onDisk() (mb float64) {
	s.settle()
	files, _ := filepath.Glob(filepath.Join(s.dir, "log*"))
	for _, f := range files {
		filepath.Walk(f, func(_ string, i os.FileInfo, err error) error { //nolint:errcheck // what is not there has no length
			if err == nil && i.Mode().IsRegular() {
				mb += float64(i.Size()) / 1e6
			}
			return nil
		})
	}
	return mb
}

// killSupervisor is kill -9 of all that supervises.
func (s *superRun) killSupervisor() {
	for _, p := range s.own() {
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

// end kills all that is under the mark, and what it starts meanwhile.
func (s *superRun) end() {
	if s.process == nil {
		return
	}
	for range 200 {
		s.killSupervisor()
		left := s.marked(func(string) bool { return true })
		for _, p := range left {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
		if len(left) == 0 {
			break
		}
		s.pause(10 * time.Millisecond)
	}
	s.process = nil
	os.RemoveAll(s.dir)
	os.MkdirAll(s.dir, 0o755)
}
