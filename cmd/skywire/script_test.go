package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"skywire/cmd/internal/applet"
	"skywire/cmd/internal/applets"
	"skywire/supervisor/config"
)

// TestMain lets this test binary be skywire under every name it answers to: the scripts run the real main.
func TestMain(m *testing.M) {
	commands := map[string]func(){}
	for _, name := range []string{
		"skywire", "viscript", "node", "manager", "vpn", "socks", "apptracker", "messenger",
		"skywire-node", "skywire-manager", "skywire-vpn", "skywire-socks", "skywire-apptracker", "skywire-messenger",
		"meshnet-run-node", "meshnet-run-socks-client", "meshnet-run-socks-server", "meshnet-run-vpn-client",
		"meshnet-run-vpn-server", "meshnet-run-apptracker",
	} {
		commands[name] = main
	}
	if os.Getenv("SKYWIRE_VM_INSIDE") != "" {
		commands = nil // each would be a copy of this file, in the memory of TestE2EKernel's machine
	}
	testscript.Main(m, commands)
}

// TestScripts runs every script of testdata/script: for each verb what it does well, a usage error, a failure. No
// script needs root or a network.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("SKYWIRE_STATE", e.WorkDir+"/state")
			e.Setenv("SKYWIRE_RUN", e.WorkDir+"/run")
			e.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"status": cmdStatus},
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
	})
}

// cmdStatus is "status N COMMAND ARGS…": runs the command and wants exit status N.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	if got := exitCode(err); got != args[0] {
		ts.Fatalf("%v: status %s, want %s", args[1:], got, args[0])
	}
}

// exitCode is the exit status behind the error of a command as text.
func exitCode(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "0"
	case errors.As(err, &exit):
		return strconv.Itoa(exit.ExitCode())
	}
	return err.Error()
}

// TestPackagedConfig: the config.yaml that packages ship has no key that skywire does not know, in any section.
func TestPackagedConfig(t *testing.T) {
	t.Parallel()
	f, err := config.Load("../../packaging/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node", "vpn", "socks"} {
		if f.Apps[name] == nil || f.Apps[name].Desc == "" {
			t.Errorf("no app %s", name)
		}
	}
	e := &applet.Env{
		Args: []string{"run", "--config", "../../packaging/config.yaml", "--listen", "nonsense://x"}, Stdout: io.Discard, Stderr: new(strings.Builder),
	}
	// The listen address is refused only after the section was read in full.
	if code := dispatch(t.Context(), "node", e, applets.All(), nil); code != applet.BadUsage || !strings.Contains(e.Stderr.(*strings.Builder).String(), "nonsense") {
		t.Errorf("status %d: %s", code, e.Stderr)
	}
}
