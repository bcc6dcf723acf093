// Package applet is what every applet of the skywire binary shares: its world (Env), its shape (Applet, Command, Verb),
// the common flags, exit statuses, and how it prints to people and to scripts.
//
// It knows no applet and holds no state. It never exits, never reads os.Args or the process's environment, and writes
// only to the streams it is given, so the same function runs as a process, inside viscript and inside a test.
//
// Rules for the code of an applet, since several may share one process:
//
//   - Only main touches what belongs to the process: signals, exit, environment, umask, working directory, limits,
//     GOMAXPROCS, the garbage collector, default loggers, flag.CommandLine, http.DefaultServeMux, time.Local.
//   - Modes of files are given explicitly and set with Chmod; umask is never called (another thread would see 0).
//   - Children are waited for by their process id, never with wait4(-1), which steals the children of other applets.
//   - Pdeathsig is not used: it belongs to the thread, and Go ends threads.
//   - A network namespace is entered only by a locked goroutine that opens a descriptor and ends without unlocking.
//   - A bbolt file is opened once per process: a second open of the same file blocks.
//   - Library loggers are set explicitly; what they send to the standard logger arrives in slog, by main's doing.
//   - A panic and a privilege are everyone's: running inside viscript trades isolation for memory.
package applet
