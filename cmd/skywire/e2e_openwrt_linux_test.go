package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const (
	luciDir = "../../packaging/openwrt/luci"
	asUser  = "453" // what stands for the user skywire of the package
)

// router is a box of the lab whose daemons the init script of OpenWrt starts, with what LuCI would ask behind a server of the test.
type router struct {
	*world
	*owrt
	name string
	acl  luciACL
	page *httptest.Server
	mu   sync.Mutex // UCI's file

	visits int
}

// luciACL is the part of the package's ACL that the server holds calls to.
type luciACL struct {
	Read, Write struct {
		File map[string][]string
		UBus map[string][]string
		UCI  []string
	}
}

func readACL(t *testing.T) luciACL {
	t.Helper()
	var all map[string]luciACL
	must(t, json.Unmarshal(readFile(t, luciDir+"/root/usr/share/rpcd/acl.d/luci-app-skywire.json"), &all))
	if len(all) != 1 {
		t.Fatalf("%d groups of rights", len(all))
	}
	return all["luci-app-skywire"]
}

// newRouter makes the box; nothing runs in it before its UCI says so and start is called.
func newRouter(t *testing.T, w *world, name, uci string) *router {
	t.Helper()
	r := &router{world: w, owrt: newOwrt(t, uci), name: name, acl: readACL(t)}
	w.plain(name)
	bin, err := builtBinary()
	must(t, err)
	must(t, os.Chmod(filepath.Dir(r.root), 0o755)) // for the daemons' own user
	must(t, copyProgram(t, bin, filepath.Join(r.root, "bin/skywire")))
	if out, err := exec.CommandContext(t.Context(), r.root+"/bin/skywire", "install-links", r.root+"/bin").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Symlink("skywire", filepath.Join(r.root, "bin", luciName)))
	r.owrt.env = append(r.owrt.env, "RUN_FOR_REAL=1", "RUN_AS="+asUser)
	t.Cleanup(func() {
		out, err := r.script(context.Background(), "end_all")
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if t.Failed() {
			logs, _ := filepath.Glob(r.root + "/*.log")
			for _, l := range logs {
				t.Logf("--- %s\n%s", filepath.Base(l), r.read(filepath.Base(l)))
			}
		}
	})
	return r
}

// script runs an action of the init script in the box.
func (r *router) script(ctx context.Context, action string) (string, error) {
	shim, err := filepath.Abs("testdata/openwrt/shim.sh")
	if err != nil {
		return "", err
	}
	c := r.box[r.name].Command(ctx, r.busybox, "sh", shim, r.files+"/skywire.init", action)
	c.Env = append(c.Env, r.owrt.env...)
	// The daemons keep what they inherit open: output goes to a file.
	f, err := os.CreateTemp(r.root, "said")
	if err != nil {
		return "", err
	}
	defer f.Close()
	c.Stdout, c.Stderr = f, f
	err = c.Run()
	said, _ := os.ReadFile(f.Name())
	return string(said), err
}

// skywire runs a verb as somebody does who is logged in on the box.
func (r *router) skywire(ctx context.Context, words ...string) (string, error) {
	c := r.box[r.name].Command(ctx, r.root+"/bin/skywire", words...)
	c.Env = append(c.Env, "SKYWIRE_RUN="+r.root+"/var/run/skywire", "SKYWIRE_STATE="+r.root+"/etc/skywire", "SKYWIRE_CONFIG="+r.root+"/var/etc/skywire.yaml")
	out, err := c.Output()
	return string(out), err
}

// pid is the process that a file of an instance names, as node.pid; 0 if there is none.
func (r *router) pid(file string) (pid int) {
	fmt.Sscan(r.read("var/run/skywire-"+file), &pid)
	if pid == 0 || syscall.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}

// serve answers for rpcd, with the real backend and the package's own rights, and gives out the pages.
func (r *router) serve() {
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir("testdata/openwrt/luci")))
	mux.Handle("/luci-static/", http.FileServer(http.Dir(luciDir+"/htdocs")))
	answer := func(path string, do func(q map[string]json.RawMessage) (any, error)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, q *http.Request) {
			var body map[string]json.RawMessage
			err := json.NewDecoder(q.Body).Decode(&body)
			var a any
			if err == nil {
				a, err = do(body)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
			_ = json.NewEncoder(w).Encode(a)
		})
	}
	answer("/rpc", r.rpc)
	answer("/exec", r.logread)
	answer("/uci", r.uciCall)
	r.page = httptest.NewServer(mux)
	r.owrt.t.Cleanup(r.page.Close)
}

func granted(all map[string][]string, object, method string) bool {
	for _, m := range all[object] {
		if m == method {
			return true
		}
	}
	return false
}

func (r *router) rpc(q map[string]json.RawMessage) (any, error) {
	var object, method string
	_ = json.Unmarshal(q["object"], &object)
	_ = json.Unmarshal(q["method"], &method)
	if !granted(r.acl.Read.UBus, object, method) && !granted(r.acl.Write.UBus, object, method) {
		return nil, fmt.Errorf("no right to %s %s", object, method)
	}
	if object == "service" {
		all := map[string]any{}
		pids, _ := filepath.Glob(r.root + "/var/run/skywire-*.pid")
		for _, path := range pids {
			name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "skywire-"), ".pid")
			all[name] = map[string]any{"running": r.pid(name+".pid") != 0, "pid": r.pid(name + ".pid"), "command": []string{name}}
		}
		return map[string]any{"skywire": map[string]any{"instances": all}}, nil
	}
	c := r.box[r.name].Command(r.owrt.t.Context(), r.root+"/bin/"+luciName, "call", method)
	c.Env = append(c.Env, "SKYWIRE_RUN="+r.root+"/var/run/skywire", "SKYWIRE_STATE="+r.root+"/etc/skywire", "SKYWIRE_CONFIG="+r.root+"/var/etc/skywire.yaml")
	c.Stdin = strings.NewReader(string(q["params"]))
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w %s", object, method, err, out)
	}
	return json.RawMessage(out), nil
}

func (r *router) logread(q map[string]json.RawMessage) (any, error) {
	var command string
	_ = json.Unmarshal(q["command"], &command)
	if !granted(r.acl.Read.File, command, "exec") {
		return nil, fmt.Errorf("no right to %q", command)
	}
	text := ""
	logs, _ := filepath.Glob(r.root + "/*.log")
	for _, l := range logs {
		text += r.read(filepath.Base(l))
	}
	return map[string]string{"stdout": text}, nil
}

var uciLine = regexp.MustCompile(`^\s*(config|option|list) '?(\w+)'?\s*(?:'(.*)')?$`)

// uciCall reads UCI's file, or changes options of it and has the init script run, as a change of the settings does.
func (r *router) uciCall(q map[string]json.RawMessage) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var set []struct {
		Section, Option, Value string
		List                   bool
	}
	if err := json.Unmarshal(q["set"], &set); err != nil && q["set"] != nil {
		return nil, err
	}
	text := r.read("uci/skywire")
	for _, s := range set {
		head := regexp.MustCompile(`(?m)^config \w+ '` + s.Section + `'\n`)
		at := head.FindStringIndex(text)
		if at == nil {
			return nil, fmt.Errorf("no section %s", s.Section)
		}
		body, rest := text[at[1]:], ""
		if next := strings.Index(body, "\nconfig "); next >= 0 {
			body, rest = body[:next], body[next:]
		}
		body = regexp.MustCompile(`(?m)^\t(option|list) '?`+s.Option+`'? .*\n?`).ReplaceAllString(body, "")
		word, values := "option", []string{s.Value}
		if s.List {
			word, values = "list", strings.Split(s.Value, "\n")
		}
		for _, v := range values {
			if v != "" {
				body = fmt.Sprintf("\t%s %s '%s'\n", word, s.Option, v) + body
			}
		}
		text = text[:at[1]] + body + rest
	}
	if len(set) > 0 {
		r.write("uci/skywire", text)
		if out, err := r.script(r.owrt.t.Context(), "start"); err != nil {
			return nil, fmt.Errorf("reload: %w: %s", err, out)
		}
	}
	sections := map[string]map[string]any{}
	var now map[string]any
	for line := range strings.Lines(text) {
		m := uciLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		switch {
		case m == nil:
		case m[1] == "config":
			now = map[string]any{".type": m[2]}
			sections[m[3]] = now
		case m[1] == "option":
			now[m[2]] = m[3]
		default:
			list, _ := now[m[2]].([]string)
			now[m[2]] = append(list, m[3])
		}
	}
	return sections, nil
}

// visit opens a view and waits until it is shown, without a problem.
func (r *router) visit(b *browser, view string) {
	b.t.Helper()
	var nothing json.RawMessage
	r.visits++
	b.call("Page.navigate", map[string]any{"url": fmt.Sprintf("%s/?%d#skywire/%s", r.page.URL, r.visits, view)}, &nothing)
	b.until(`window.shown || (window.problems && problems.length)`)
	r.noProblems(b, view)
}

// save is "Save & Apply".
func (r *router) save(b *browser) {
	b.t.Helper()
	if got := b.do(`saveAndApply()`); !strings.HasPrefix(got, "{") {
		b.t.Fatal("save: ", got)
	}
}

func (r *router) noProblems(b *browser, view string) {
	b.t.Helper()
	if got := b.do(`JSON.stringify(window.problems)`); got != `"[]"` {
		b.t.Fatalf("%s: %s", view, got)
	}
	if n := b.do(`document.images.length + document.querySelectorAll('b, script:not([src])').length`); n != "0" {
		b.t.Errorf("%s: words of another box became %s elements of the page", view, n)
	}
	dir := os.Getenv("SKYWIRE_SHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	must(r.owrt.t, err)
	must(r.owrt.t, os.WriteFile(filepath.Join(dir, "luci-"+view+".png"), png, 0o644))
}

// text has the view ask again until what an element of the page says matches an expression.
func (b *browser) text(selector, expression string) {
	b.t.Helper()
	script := fmt.Sprintf(`pollNow().then(() => (document.querySelector(%q) || {textContent: ''}).textContent)`, selector)
	want := regexp.MustCompile(expression)
	var got string
	for range 80 {
		if got = b.do(script); want.MatchString(got) {
			return
		}
		b.do(`new Promise(done => setTimeout(done, 250))`)
	}
	b.t.Fatalf("%s never says %s: %s", selector, expression, got)
}

// TestE2ELuCI: the init script starts the daemons that UCI says, the node as a user without rights, and the views of luci-app-skywire,
// in a browser and with the real backend, show and change them. LuCI and procd are stand-ins: testdata/openwrt.
func TestE2ELuCI(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium")
	}
	t.Parallel()
	w := newWorld(t, "luci")
	w.boxes("exit")
	shipped := string(readFile(t, "../../packaging/openwrt/files/skywire.config"))
	r := newRouter(t, w, "router", shipped+"\nconfig app 'count'\n\toption path 'sh'\n\toption desc '<b>counts</b>'\n"+
		"\tlist default_args '-c'\n\tlist default_args 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done'\n")
	w.must(w.lab.Wire(w.end("router", "wan", "10.9.0.1/24"), w.end("exit", "eth0", "10.9.0.2/24")))
	w.node("exit", "--no-lan") // or the wire's link-local address may be the link's
	w.start("exit", "socks", "socks", "server", "--allow", w.key["exit"])
	r.serve()
	b := newBrowser(t, chromium, "about:blank")

	r.visit(b, "status") // as shipped: nothing runs
	b.until(`/not running/.test(document.body.textContent)`)

	r.visit(b, "settings")
	b.do(`document.querySelector('[name="globals.enabled"]').click()`)
	b.do(`document.querySelector('[name="node.name"]').value = 'attic'`)
	b.do(`document.querySelector('[name="node.peers"]').value = ` + fmt.Sprintf("%q", w.peer("exit", "10.9.0.2")))
	b.do(`document.querySelector('[name="node.open"]').click()`)
	r.save(b)
	r.wait("the node", func(ctx context.Context) error {
		_, err := r.skywire(ctx, "node", "status")
		return err
	})
	if status := r.procStatus("node"); !strings.Contains(status, "Uid:\t"+asUser+"\t") || !strings.Contains(status, "CapEff:\t0000000000000000") {
		t.Errorf("the node has more rights than it needs:\n%s", status)
	}

	r.visit(b, "status")
	b.text("#skywire-links", "exit.*udp:..10.9.0.2:"+meshPort+".*up")
	id, err := r.skywire(t.Context(), "node", "id")
	must(t, err)
	b.text("#skywire-node", strings.TrimSpace(id)+".*attic")
	b.do(`document.querySelector('#skywire-invite').value = 'skywire:join?nonsense'`)
	b.do(`document.querySelector('#maincontent button').click()`)
	b.until(`/invite/.test(document.querySelector('#notifications').textContent)`)
	r.noProblems(b, "status")

	node := r.pid("node.pid")
	w.start("exit", "vpn", "vpn", "server", "--subnet", "10.77.0.0/24", "--allow", strings.TrimSpace(id))
	r.wait("the offer", func(ctx context.Context) error {
		out, err := r.skywire(ctx, "vpn", "servers")
		if err == nil && !strings.Contains(out, "subnets=1") {
			err = fmt.Errorf("not there: %s", out)
		}
		return err
	})
	r.visit(b, "vpn")
	b.text("#skywire-vpn-servers", "exit"+w.key["exit"]+".*subnets=1")
	b.do(`document.querySelector('[name="vpn.enabled"]').click()`)
	b.do(`document.querySelector('[name="vpn.mtu"]').value = '1300'`)
	r.save(b)
	b.text("#skywire-vpn", "State\\s*up.*skywire0.*Kill switch\\s*off")
	r.noProblems(b, "vpn")

	r.visit(b, "socks")
	b.text("#skywire-socks-servers", w.key["exit"])
	b.do(`document.querySelector('[name="socks_client.enabled"]').click()`)
	r.save(b)
	b.text("#skywire-socks", "127.0.0.1:1080")
	r.noProblems(b, "socks")

	r.visit(b, "apps")
	b.do(`document.querySelector('[name="viscript.enabled"]').click()`)
	r.save(b)
	b.text("#skywire-ready", "count.*<b>counts")
	b.do(`document.querySelector('#skywire-ready button').click()`)
	b.text("#skywire-apps", "count\\s*running")
	b.text("#skywire-daemons", "noderunning.*socks_clientrunning.*viscriptrunning.*vpnrunning")
	b.do(`[...document.querySelectorAll('#skywire-apps button')].find(e => e.textContent == 'Log').click()`)
	b.until(`/line [0-9]+/.test((document.querySelector('#skywire-log') || {}).textContent)`)
	b.do(`[...document.querySelectorAll('#skywire-apps button')].find(e => e.textContent == 'Stop').click()`)
	b.text("#skywire-apps", "countexited")
	r.noProblems(b, "apps")

	r.visit(b, "logs")
	b.until(`/node/.test(document.querySelector('#skywire-syslog').textContent)`)
	if r.pid("node.pid") != node {
		t.Error("the node was started again by what concerns it not")
	}
}

func (r *router) procStatus(instance string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid(instance+".pid")))
	return string(b)
}
