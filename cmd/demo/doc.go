// Command demo shows the whole system on one machine: it builds a small internet out of network namespaces, starts the
// real binary in them, proves what the README says with figures, and leaves the user in the viscript shell.
// It holds no part of skywire. Everything it made is gone when it ends, however it ends.
package main
