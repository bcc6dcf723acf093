package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets this test binary be skywire under every name it answers to: the scripts run the real main.
func TestMain(m *testing.M) {
	commands := map[string]func(){}
	for _, name := range []string{
		"skywire", "viscript", "node", "manager", "vpn", "socks", "apptracker",
		"skywire-node", "skywire-manager", "skywire-vpn", "skywire-socks", "skywire-apptracker",
		"meshnet-run-node", "meshnet-run-socks-client", "meshnet-run-socks-server", "meshnet-run-vpn-client",
		"meshnet-run-vpn-server", "meshnet-run-apptracker",
	} {
		commands[name] = main
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
