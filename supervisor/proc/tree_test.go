package proc

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"
)

// helperVariable makes this test binary a program with a child, or that child.
const helperVariable = "PROC_TEST_HELPER"

// TestMain is the program of TestStopTree when it is asked to be.
func TestMain(m *testing.M) {
	switch os.Getenv(helperVariable) {
	case "parent":
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), helperVariable+"=child")
		c.Stdout = os.Stdout
		if err := c.Run(); err != nil {
			os.Exit(3)
		}
	case "child":
		os.Stdout.WriteString("here\n")
		time.Sleep(time.Hour)
	default:
		os.Exit(m.Run())
	}
}

// TestStopTree: what an app started ends with it, on every system.
func TestStopTree(t *testing.T) {
	t.Parallel()
	h := NewHost(slog.New(slog.DiscardHandler), false)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c, err := h.Start(Spec{
		Path: os.Args[0], Args: os.Args[:1], Env: append(os.Environ(), helperVariable+"=parent"), Stdin: null, Stdout: w, Stderr: os.Stderr,
		Mark: "stop-tree", Extra: make([]*os.File, 2),
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	exit := make(chan Exit, 1)
	go func() { exit <- c.Wait(context.Background()) }()
	said := make([]byte, 16)
	if n, err := r.Read(said); err != nil || string(said[:4]) != "here" {
		t.Fatalf("%q, %v", said[:n], err)
	}
	if len(c.Members(true)) == 0 {
		t.Error("a running tree has no members")
	}
	if u := c.Usage(); u.Processes == 0 || u.Source == "" {
		t.Errorf("%+v", u)
	}
	if left := c.Kill(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if e := <-exit; e.OK() {
		t.Errorf("it ended well: %+v", e)
	}
	if n, err := r.Read(said); n > 0 || err == nil { // the pipe ends when the child of the child has gone
		t.Errorf("%d bytes, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if !c.Empty(ctx) {
		t.Error("not empty")
	}
	c.Release()
}
