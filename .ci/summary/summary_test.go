package main

import (
	"errors"
	"strings"
	"testing"
)

const pkg = `"Package":"skywire/cmd/skywire"`

func act(action, test string) string {
	return `{"Action":"` + action + `",` + pkg + `,"Test":"` + test + `"}` + "\n"
}

func say(test, text string) string {
	return `{"Action":"output",` + pkg + `,"Test":"` + test + `","Output":"` + text + `\n"}` + "\n"
}

func said(text string) string {
	return `{"Action":"output",` + pkg + `,"Output":"` + text + `\n"}` + "\n"
}

// flags is what Makefile writes before a run.
func flags(text string) string { return `{"Action":"flags","Output":"` + text + `"}` + "\n" }

func whole(action string) string { return `{"Action":"` + action + `",` + pkg + `}` + "\n" }

func one(test, action string) string {
	return act("run", test) + say(test, "--- FAIL: what it says") + act(action, test)
}

func TestSummary(t *testing.T) {
	passes := func(n name, _ string, take func(event)) error {
		return readEvents(strings.NewReader(one(n.test, "pass")+whole("pass")), take, nil)
	}
	fails := func(n name, _ string, take func(event)) error {
		_ = readEvents(strings.NewReader(one(n.test, "fail")+whole("fail")), take, nil)
		return errors.New("exit status 1")
	}
	none := func(n name, _ string, _ func(event)) error { t.Error(n.test, "ran again"); return nil }
	withRace := func(n name, flags string, take func(event)) error {
		if flags != "-race -short" {
			t.Errorf("%s ran again with %q", n.test, flags)
		}
		return passes(n, flags, take)
	}
	for _, tt := range []struct {
		name, in string
		alone    func(name, string, func(event)) error
		ok       bool
		has      []string
		not      []string
	}{
		{"all well", one("TestA", "pass") + one("TestE2EB", "pass") + whole("pass"), none, true, []string{"ok  \t", "\n2 passed, 0 failed, 0 skipped\n"}, nil},
		{
			"a unit test that fails twice", one("TestA", "fail") + whole("fail"), fails, false,
			[]string{"again, alone", "--- FAIL: skywire/cmd/skywire TestA", "FAIL\t", "\n0 passed, 1 failed, 0 skipped\n"},
			nil,
		},
		{
			"an unsteady unit test", flags("") + one("TestA", "pass") + whole("pass") + flags("-race -short") + one("TestB", "fail") + whole("fail"), withRace, true,
			[]string{"unsteady: skywire/cmd/skywire TestB failed once", "| --- fail: what it says", "\n2 passed, 0 failed, 0 skipped\n"},
			[]string{"FAIL"},
		},
		{
			"with the race detector and without", flags("") + one("TestA", "fail") + whole("fail") + flags("-race -short") + whole("start") + one("TestA", "fail") + whole("fail"),
			none, false,
			[]string{"\n0 passed, 2 failed, 0 skipped\n"},
			[]string{"unsteady"},
		},
		{
			"a data race", act("run", "TestA") + say("TestA", "WARNING: DATA RACE") + act("fail", "TestA") + one("TestE2EB", "fail") + whole("fail"), none, false,
			[]string{"--- FAIL: skywire/cmd/skywire TestA", "\n0 passed, 2 failed, 0 skipped\n"},
			[]string{"unsteady"},
		},
		{
			"a data race between tests", one("TestA", "fail") + said("testing: race detected during execution of test") + whole("fail"), none, false,
			[]string{"did not end as it should", "\n0 passed, 2 failed, 0 skipped\n"},
			[]string{"unsteady"},
		},
		{
			"unsteady", one("TestA", "pass") + one("TestE2EB", "fail") + whole("fail"), passes, true,
			[]string{"unsteady: skywire/cmd/skywire TestE2EB failed once", "| --- fail: what it says", "ok  \t", "\n2 passed, 0 failed, 0 skipped\n"},
			[]string{"FAIL"},
		},
		{
			"fails twice", one("TestA", "pass") + one("TestE2EB", "fail") + whole("fail"), fails, false,
			[]string{"again, alone", "--- FAIL: skywire/cmd/skywire TestE2EB", "FAIL\t", "\n1 passed, 1 failed, 0 skipped\n"},
			nil,
		},
		{
			"too many", one("TestA", "fail") + one("TestE2EB", "fail") + one("TestE2EC", "fail") + one("TestE2ED", "fail") + whole("fail"), none, false,
			[]string{"\n0 passed, 4 failed, 0 skipped\n"},
			[]string{"unsteady"},
		},
		{
			"a subtest", act("run", "TestE2EA") + one("TestE2EA/x", "fail") + act("fail", "TestE2EA") + whole("fail"), passes, true,
			[]string{"\n1 passed, 0 failed, 0 skipped\n"},
			[]string{"FAIL"},
		},
		{
			"one of two", one("TestA", "fail") + one("TestE2EB", "fail") + whole("fail"),
			func(n name, f string, take func(event)) error {
				if n.test == "TestA" {
					return fails(n, f, take)
				}
				return passes(n, f, take)
			},
			false,
			[]string{"unsteady: skywire/cmd/skywire TestE2EB", "FAIL\t", "\n1 passed, 1 failed, 0 skipped\n"},
			nil,
		},
		{
			"out of time", one("TestA", "pass") + act("run", "TestB") + say("TestB", "panic: test timed out after 10m0s") + whole("fail"), none, false,
			[]string{"did not end as it should: panic: test timed out after 10m0s; cut off: TestB", "\n1 passed, 1 failed, 0 skipped\n"},
			nil,
		},
		{
			"cut off beside an unsteady one", one("TestE2EA", "fail") + act("run", "TestE2EB") + say("TestE2EB", "fatal error: all goroutines") + whole("fail"), none, false,
			[]string{"cut off: TestE2EB", "\n0 passed, 2 failed, 0 skipped\n"},
			[]string{"unsteady"},
		},
		{
			"a process left behind", one("TestA", "pass") + said("*** Test I/O incomplete 1m0s after exiting.") + whole("fail"),
			none, false,
			[]string{"should: *** Test I/O incomplete 1m0s after exiting.", "\n1 passed, 1 failed, 0 skipped\n"},
			nil,
		},
		{"a skip that is not listed", one("TestA", "pass") + one("TestB", "skip") + whole("pass"), none, false, []string{"\n1 passed, 1 failed, 1 skipped\n"}, nil},
		{"a second run of the package", one("TestA", "fail") + whole("fail") + whole("start") + one("TestA", "pass") + whole("fail"), none, false, []string{"it says nothing", "\n1 passed, 2 failed, 0 skipped\n"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			s := newSummary(&out, tt.alone)
			if err := s.read(strings.NewReader(tt.in)); err != nil {
				t.Fatal(err)
			}
			s.repeat()
			if ok := s.finish(nil, true); ok != tt.ok {
				t.Errorf("ok is %v", ok)
			}
			for _, want := range tt.has {
				if !strings.Contains("\n"+out.String(), want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
			for _, not := range tt.not {
				if strings.Contains(strings.ReplaceAll(out.String(), "failed", ""), not) {
					t.Errorf("%q in:\n%s", not, out.String())
				}
			}
		})
	}
}
