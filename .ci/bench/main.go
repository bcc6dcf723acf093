// Command bench runs what `make bench-e2e` compares with and what has no program of its own: wireguard-go on one TUN device,
// and a bare copy between two. It is a module of its own, so that its dependencies are not the project's; nothing is
// installed, and it configures no addresses. The module also pins nebula, which is built from here as it is.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: bench wireguard DEVICE PORT PRIVATE-KEY-HEX {PEER-KEY-HEX PEER-ADDR:PORT ALLOWED,...}...
       bench copy DEVICE NAMESPACE NAMESPACE`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 7 && len(args)%3 == 1 && args[0] == "wireguard":
		return runWireguard(args[1], args[2], args[3], args[4:])
	case len(args) == 4 && args[0] == "copy":
		return runCopy(args[1], args[2], args[3])
	}
	return fmt.Errorf("%s", usage)
}

// untilStopped waits for the signal that ends the program.
func untilStopped() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
}
