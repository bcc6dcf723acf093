// Package lab builds small networks out of Linux network namespaces, runs real programs in them and takes everything
// down again: it carries the end-to-end tests and the demo. Linux only; it needs root, or a kernel that lets an ordinary
// user make namespaces (Reexec).
//
// It knows nothing of the mesh but where a box keeps its folders, and does not emulate bad links: mesh/meshtest/emulator
// does, on descriptors that Box.Enter opens.
//
// Rules: every namespace is called lab-NAME-PID-BOX. Close removes all; should the process die before it (panic, Ctrl-C,
// kill -9), a guard process of its own session does the same. Waiting is polling with a deadline, never a blind pause.
package lab
