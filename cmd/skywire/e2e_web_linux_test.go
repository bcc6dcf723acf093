package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// webApps is the config.yaml of a viscript with a page.
const webApps = `settings: {web: {listen: "127.0.0.1:0", metrics: true}}
apps:
  count: {path: sh, desc: "<b>counts</b>", default_args: [-c, "i=0; while :; do i=$((i+1)); echo line $i '<img src=x onerror=alert(1)>'; sleep 0.05; done"]}
`

// TestE2EWeb: a browser opens the page by the address of viscript web, starts an app, reads its lines, and stops it; nobody
// gets in by another name, another page or an old address.
func TestE2EWeb(t *testing.T) {
	t.Parallel()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium")
	}
	v := newWebViscript(t)
	invited := v.invite()
	b := newBrowser(t, chromium, invited)
	b.until(`document.querySelector('#main') && !document.querySelector('#main').hidden && document.querySelector('#app').value === 'count'`)
	b.do(`document.querySelector('#start button').click()`)
	b.until(`/line [0-9]+ <img/.test(document.querySelector('#log').textContent)`)
	if n := b.do(`document.images.length`); n != "0" {
		t.Errorf("text of an app became %s pictures", n)
	}
	b.until(`document.querySelector('#apps tbody tr td.running')`)
	b.do(`document.querySelector('[aria-label="ping count#1"]').click()`)
	b.until(`/count#1 answered in/.test(document.querySelector('#message').textContent)`)
	b.do(`document.querySelector('[aria-label="stop count#1"]').click()`)
	b.until(`/count#1 stopped/.test(document.querySelector('#message').textContent)`)
	b.until(`/count#1 exited/.test(document.querySelector('#events').textContent)`)
	if out := v.run("ps", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("after the stop: %s", out)
	}
	if out := v.run("audit"); !strings.Contains(out, "web page (admin): start count: done") {
		t.Errorf("audit: %s", out)
	}
	if text := b.do(`document.cookie`); text != `""` {
		t.Errorf("scripts see the cookie: %s", text)
	}
	// The address is used up, by a fresh browser too.
	other := newBrowser(t, chromium, invited)
	other.until(`/used already/.test(document.querySelector('#message').textContent) || /Not logged in/.test(document.querySelector('#message').textContent)`)
	v.strangers()
}

// webViscript is a viscript with a page, in directories of its own.
type webViscript struct {
	t           *testing.T
	binary, dir string
	page        string // http://127.0.0.1:PORT/
}

func newWebViscript(t *testing.T) *webViscript {
	t.Helper()
	binary, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	v := &webViscript{t: t, binary: binary, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(v.dir, "config.yaml"), []byte(webApps), 0o600); err != nil {
		t.Fatal(err)
	}
	c := v.command(context.Background(), "run")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(os.Interrupt)
		c.Wait()
	})
	for v.page == "" && t.Context().Err() == nil {
		if m := regexp.MustCompile(`^(http://127\.0\.0\.1:\d+/)#`).FindStringSubmatch(v.try("web")); m != nil {
			v.page = m[1]
		}
	}
	return v
}

func (v *webViscript) command(ctx context.Context, words ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, v.binary, append([]string{"viscript"}, words...)...)
	c.Env = append(os.Environ(), "SKYWIRE_STATE="+v.dir, "SKYWIRE_RUN="+filepath.Join(v.dir, "run"), "SKYWIRE_CONFIG="+filepath.Join(v.dir, "config.yaml"))
	return c
}

func (v *webViscript) try(words ...string) string {
	out, _ := v.command(v.t.Context(), words...).Output()
	return string(out)
}

func (v *webViscript) run(words ...string) string {
	v.t.Helper()
	out, err := v.command(v.t.Context(), words...).Output()
	if err != nil {
		v.t.Fatalf("viscript %v: %v", words, err)
	}
	return string(out)
}

func (v *webViscript) invite() string { return strings.TrimSpace(v.run("web")) }

// strangers ask as a name that was rebound, a foreign page, a form and a program without a session would.
func (v *webViscript) strangers() {
	v.t.Helper()
	host := strings.TrimSuffix(strings.TrimPrefix(v.page, "http://"), "/")
	_, port, _ := strings.Cut(host, ":")
	token := v.invite()[len(v.page)+1:]
	login := `{"token":"` + token + `"}`
	for _, c := range []struct {
		what, method, path, body string
		headers                  map[string]string
		want                     int
	}{
		{"a rebound name", "GET", "", "", map[string]string{"Host": "evil.example:" + port}, 403},
		{"a rebound name logs in", "POST", "login", login, map[string]string{"Host": "evil.example:" + port}, 403},
		{"another port", "POST", "login", login, map[string]string{"Host": "127.0.0.1:1"}, 403},
		{"a foreign page logs in", "POST", "login", login, map[string]string{"Origin": "http://evil.example"}, 403},
		{"a page without a name", "POST", "login", login, map[string]string{"Origin": "null"}, 403},
		{"a foreign page reads", "GET", "page.js", "", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"a form", "POST", "login", login, map[string]string{"Content-Type": "text/plain"}, 415},
		{"a wrong token", "POST", "login", `{"token":"guessed"}`, nil, 401},
		{"no session", "POST", "call", `{"method":"viscript.ps"}`, nil, 401},
		{"a made-up session", "POST", "call", `{"method":"viscript.ps"}`, map[string]string{"Cookie": "skywire=guess", "X-Skywire-Token": "guess"}, 401},
		{"no session to follow", "GET", "stream?method=viscript.events", "", nil, 401},
		{"too long", "POST", "login", `{"token":"` + strings.Repeat("x", 2<<20) + `"}`, nil, 400},
		{"another method", "DELETE", "call", "", nil, 405},
		{"the page itself", "GET", "", "", nil, 200},
		{"metrics, as configured", "GET", "metrics", "", nil, 200},
	} {
		status, text, cookie := v.ask(c.method, c.path, c.body, c.headers)
		if status != c.want {
			v.t.Errorf("%s: %d %s", c.what, status, text)
		}
		if c.path == "metrics" && !strings.Contains(text, "viscript_apps_configured 1\n") {
			v.t.Errorf("%s: %s", c.what, text)
		}
		if cookie != "" {
			v.t.Errorf("%s got a cookie", c.what)
		}
	}
	// With the cookie alone, as a page of this site would send it that stole nothing else.
	status, text, cookie := v.ask("POST", "login", login, nil)
	if status != 200 || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") {
		v.t.Fatalf("login: %d %s %s", status, text, cookie)
	}
	session, _, _ := strings.Cut(cookie, ";")
	var second struct{ Token string }
	if err := json.Unmarshal([]byte(text), &second); err != nil {
		v.t.Fatal(err)
	}
	for shown, want := range map[string]int{"": 401, "guess": 401, second.Token: 200} {
		if status, text, _ := v.ask("POST", "call", `{"method":"viscript.ps"}`, map[string]string{"Cookie": session, "X-Skywire-Token": shown}); status != want {
			v.t.Errorf("second token %q: %d %s", shown, status, text)
		}
	}
	if _, text, _ := v.ask("POST", "call", `{"method":"node.join"}`, map[string]string{"Cookie": session, "X-Skywire-Token": second.Token}); !strings.Contains(text, "unknown_method") {
		v.t.Errorf("a method of the node that changes it: %s", text)
	}
}

func (v *webViscript) ask(method, path, body string, headers map[string]string) (status int, text, cookie string) {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, v.page+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for k, h := range headers {
		r.Header.Set(k, h)
	}
	if h := headers["Host"]; h != "" {
		r.Host = h
	}
	a, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return a.StatusCode, string(b), a.Header.Get("Set-Cookie")
}

// browser is a headless Chromium with one page, driven by the DevTools protocol.
type browser struct {
	t       *testing.T
	ws      *websocket.Conn
	session string
	id      int
}

func newBrowser(t *testing.T, chromium, address string) *browser {
	t.Helper()
	c := exec.Command(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-allow-origins=*",
		"--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), "about:blank")
	errs, err := c.StderrPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	lines := bufio.NewScanner(errs)
	var said bytes.Buffer
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if _, at, ok := strings.Cut(lines.Text(), "DevTools listening on "); ok {
			go io.Copy(io.Discard, errs) // ends with chromium
			b := &browser{t: t}
			if b.ws, err = websocket.Dial(at, "", "http://127.0.0.1"); err != nil {
				t.Fatal(err)
			}
			b.ws.MaxPayloadBytes = 16 << 20
			var target struct{ TargetID, SessionID string }
			b.call("Target.createTarget", map[string]any{"url": address}, &target)
			b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
			b.session = target.SessionID
			return b
		}
	}
	t.Fatalf("chromium: %s", &said)
	return nil
}

func (b *browser) call(method string, params map[string]any, into any) {
	b.t.Helper()
	b.id++
	q := map[string]any{"id": b.id, "method": method, "params": params}
	if b.session != "" {
		q["sessionId"] = b.session
	}
	if err := websocket.JSON.Send(b.ws, q); err != nil {
		b.t.Fatal(err)
	}
	for {
		var a struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := websocket.JSON.Receive(b.ws, &a); err != nil {
			b.t.Fatal(err)
		}
		switch {
		case a.ID != b.id: // an event
		case a.Error != nil:
			b.t.Fatalf("%s: %s", method, a.Error.Message)
		default:
			if err := json.Unmarshal(a.Result, into); err != nil {
				b.t.Fatal(err)
			}
			return
		}
	}
}

// do runs a script in the page and returns its value as JSON.
func (b *browser) do(script string) string {
	b.t.Helper()
	var a struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "awaitPromise": true}, &a)
	if a.ExceptionDetails != nil {
		return fmt.Sprintf("exception %s", a.ExceptionDetails)
	}
	return string(a.Result.Value)
}

// until waits until a script in the page says true.
func (b *browser) until(script string) {
	b.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); b.do("!!("+script+")") != "true"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("never: %s\n%s", script, b.do(`document.body ? document.body.innerText : document.URL`))
		}
	}
}
