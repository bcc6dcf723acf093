package signal

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// example is a client of signal/examples and what runs it.
type example struct {
	file   string
	needs  string // a program
	start  func(t *testing.T, file string) *exec.Cmd
	rejoin bool // it joins again by the address
}

func interpreted(program string) func(*testing.T, string) *exec.Cmd {
	return func(_ *testing.T, file string) *exec.Cmd { return exec.Command(program, file) }
}

var examples = []example{
	{"client.py", "python3", interpreted("python3"), true},
	{"client.sh", "sh", interpreted("sh"), false},
	{"client.js", "node", interpreted("node"), true},
	{"client.c", "cc", func(t *testing.T, file string) *exec.Cmd {
		bin := filepath.Join(t.TempDir(), "client")
		if out, err := exec.Command("cc", "-Wall", "-Wextra", "-Werror", "-o", bin, file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return exec.Command(bin)
	}, false},
	{"goclient/main.go", "go", func(t *testing.T, file string) *exec.Cmd {
		bin := filepath.Join(t.TempDir(), "client")
		if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./"+filepath.Dir(file)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return exec.Command(bin)
	}, true},
}

// peer is viscript's side of the conformance script, by hand: it says what the library would not.
type peer struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func (p *peer) says(lines ...string) {
	p.t.Helper()
	if _, err := io.WriteString(p.c, strings.Join(lines, "\n")+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// heard is any line.
type heard struct {
	JSONRPC string
	ID      json.RawMessage
	Method  string
	Params  map[string]json.RawMessage
	Result  map[string]json.RawMessage
	Error   *Error
}

// hears reads the next line.
func (p *peer) hears() (m heard) {
	p.t.Helper()
	p.c.SetReadDeadline(time.Now().Add(30 * time.Second))
	line, err := p.r.ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &m)
	}
	if err != nil || m.JSONRPC != "2.0" {
		p.t.Fatalf("%q: %v", line, err)
	}
	return m
}

// TestExamples holds every example client to the same script.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, x := range examples {
		t.Run(x.file, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(x.needs); err != nil {
				t.Skipf("%s is not installed", x.needs)
			}
			path := filepath.Join("examples", x.file)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(b), "\n"); n > 60 {
				t.Errorf("%d lines; an example has 60 at most", n)
			}
			conform(t, x, x.start(t, path))
		})
	}
}

func conform(t *testing.T, x example, cmd *exec.Cmd) {
	l, err := net.Listen("unix", socketPath(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mine, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{theirs}
	cmd.Env = append(os.Environ(), "SIGNAL_FD=3", "SIGNAL_CLIENT=true", "SIGNAL_CLIENT_ID=7",
		"SIGNAL_SERVER_ADDRESS="+l.Addr().String(), "SIGNAL_TOKEN=00112233445566778899aabbccddeeff")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()
	p := &peer{t, mine, bufio.NewReader(mine)}
	p.joins(cmd.Process.Pid, "")
	p.works(cmd.Process.Pid)
	if x.rejoin { // viscript is killed, and there is another
		mine.Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p = &peer{t, c, bufio.NewReader(c)}
		p.joins(cmd.Process.Pid, "7")
		p.works(cmd.Process.Pid)
	}
	p.says(`{"jsonrpc":"2.0","id":99,"method":"shutdown","params":{"grace_ms":5000,"reason":"test"}}`)
	if m := p.hears(); string(m.ID) != "99" || m.Error != nil || string(m.Result["pid"]) != fmt.Sprint(cmd.Process.Pid) {
		t.Errorf("shutdown: %+v", m)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("its end: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
}

// joins expects hello, with the id and token only at the address, and what follows the welcome.
func (p *peer) joins(pid int, id string) {
	p.t.Helper()
	m := p.hears()
	if m.Method != "hello" || string(m.Params["pid"]) != fmt.Sprint(pid) || len(m.Params["name"]) < 3 || string(m.ID) == "" {
		p.t.Fatalf("hello: %+v", m)
	}
	if string(m.Params["id"]) != id || (id != "") != (string(m.Params["token"]) == `"00112233445566778899aabbccddeeff"`) {
		p.t.Errorf("id %s, token %s, want id %s", m.Params["id"], m.Params["token"], id)
	}
	var proto []int
	if json.Unmarshal(m.Params["proto"], &proto) != nil || len(proto) != 1 || proto[0] != 1 {
		p.t.Errorf("proto %s", m.Params["proto"])
	}
	p.says(`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":{"proto":1,"id":7,"later":true}}`)
	if m = p.hears(); m.Method != "status" || len(m.ID) > 0 || len(m.Params["text"]) < 3 {
		p.t.Errorf("status: %+v", m)
	}
	if m = p.hears(); m.Method != "ready" || len(m.ID) > 0 {
		p.t.Errorf("ready: %+v", m)
	}
}

// works asks in every form that the protocol allows.
func (p *peer) works(pid int) {
	p.t.Helper()
	const busy = 50
	p.says(
		``,
		`{"jsonrpc":"2.0","method":"whatever","params":{"id":1}}`, // nobody answers a notification
		`{"jsonrpc":"2.0","id":2,"method":"ping","params":{"id":5,"method":"shutdown"},"timeout_ms":2000,"later":[{"x":"y"}]}`,
		`{"params":{"id":5,"x":{"method":"no"}},"method":"ping","jsonrpc":"2.0","id":"two words"}`,
		`{"jsonrpc": "2.0", "id": 3, "method": "ru"}`,
		`{"jsonrpc":"2.0","id":4,"method":"nosuch","params":{}}`,
	)
	p.answered(4, func(id string, m heard) bool {
		switch {
		case id == "2", id == `"two words"`:
			return m.Error == nil && string(m.Result["pid"]) == fmt.Sprint(pid)
		case id == "3":
			return m.Error == nil && len(m.Result) > 0
		case id == "4":
			return m.Error != nil && m.Error.Name == "unknown_method" && m.Error.Code == -32601
		}
		return false
	})
	for i := range busy {
		p.says(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"ping","params":{}}`, 1000+i))
	}
	p.answered(busy, func(id string, m heard) bool {
		n, err := strconv.Atoi(id)
		return err == nil && n >= 1000 && n < 1000+busy && m.Error == nil
	})
}

// answered takes n answers, in whatever order they come, and wants each id once.
func (p *peer) answered(n int, right func(id string, m heard) bool) {
	p.t.Helper()
	seen := map[string]bool{}
	for range n {
		m := p.hears()
		id := string(m.ID)
		if seen[id] || !right(id, m) {
			p.t.Errorf("answer to %s: %+v", id, m)
		}
		seen[id] = true
	}
}
