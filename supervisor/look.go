package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// maxSaid is what is kept of the output of a hook or a probe.
const maxSaid = 2000

// look asks once whether an app serves.
func (s *Supervisor) look(ctx context.Context, a *config.App, p config.Probe) error {
	switch {
	case p.TCP != "":
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", p.TCP)
		if err == nil {
			c.Close()
		}
		return err
	case p.HTTP != "":
		return lookHTTP(ctx, p.HTTP)
	}
	out, err := s.command(ctx, a, p.Exec, nil)
	if err != nil && out != "" {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return err
}

// lookHTTP wants a status below 400. It is HTTP/1.0 by hand: the whole of net/http for one line would be a tenth of the
// binary of a small router.
func lookHTTP(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: viscript\r\nConnection: close\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(c, 4096)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no status: %w", err)
	}
	f := strings.Fields(line)
	if len(f) < 2 || !strings.HasPrefix(f[0], "HTTP/") {
		return errors.New("the answer is no HTTP")
	}
	if code, err := strconv.Atoi(f[1]); err != nil || code < 100 || code >= 400 {
		return fmt.Errorf("status %s", strings.Join(f[1:], " "))
	}
	return nil
}

// command runs a program of config.yaml to its end, or to that of ctx, and returns the first of what it says.
func (s *Supervisor) command(ctx context.Context, a *config.App, argv, environ []string) (string, error) {
	file, argv0, err := s.program(argv[0])
	if err != nil {
		return "", err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return "", err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	spec := proc.Spec{
		Path: file, Args: append([]string{argv0}, argv[1:]...), Dir: a.Cwd, Mark: random(), Stdin: null, Stdout: w, Stderr: w,
		Env: append(s.environ(launch{app: a}), environ...),
	}
	if spec.Dir == "" {
		spec.Dir = s.c.Dir
	}
	if err = confine(&spec, a); err != nil {
		w.Close()
		return "", err
	}
	child, err := s.host.Start(spec)
	w.Close()
	if err != nil {
		return "", err
	}
	read := make(chan string, 1)
	go func() { // ends when nobody holds the pipe, or with the deadline below
		b, _ := io.ReadAll(io.LimitReader(r, maxSaid))
		io.Copy(io.Discard, r)
		read <- strings.TrimSpace(string(b))
	}()
	exited := make(chan proc.Exit, 1)
	go func() { exited <- child.Wait(context.WithoutCancel(ctx)) }()
	var exit proc.Exit
	select {
	case exit = <-exited:
	case <-ctx.Done():
		child.Signal(syscall.SIGTERM)
		child.Kill()
		exit = proc.Exit{Unknown: true}
	}
	child.Kill() // what it may have left behind
	child.Release()
	r.SetReadDeadline(time.Now().Add(waitOutput))
	out := <-read
	switch {
	case ctx.Err() != nil:
		return out, ctx.Err()
	case !exit.OK():
		return out, fmt.Errorf("%s: %s", argv[0], describe(exit))
	}
	return out, nil
}

// hook runs a program of hooks and notes what came of it in the app's log.
func (s *Supervisor) hook(ctx context.Context, a *config.App, ring *Ring, id uint64, what, reason string, argv []string) {
	ctx, cancel := context.WithTimeout(ctx, config.HookTimeout)
	defer cancel()
	out, err := s.command(ctx, a, argv, []string{
		"APP=" + a.Name, "APP_ID=" + strconv.FormatUint(id, 10), "EVENT=" + what, "REASON=" + reason,
	})
	text := "hook " + what + ": done"
	if err != nil {
		text = "hook " + what + ": " + err.Error()
		s.log.Warn("hook failed", "id", id, "app", a.Name, "type", what, "err", err)
	}
	if out != "" {
		text += ": " + out
	}
	ring.Add(s.c.now(), streamNote, text)
}
