// Goclient is an app of viscript: the import makes it one. It serves, answers ping, ru and shutdown, and joins again when
// viscript was restarted. Without OnShutdown a shutdown would be a SIGTERM, so that programs that know that need nothing but
// the import. Started in any other way it is an ordinary program.
package main

import (
	"time"

	"skywire/signal/auto"
)

func main() {
	end := make(chan struct{}, 1)
	auto.OnShutdown(func(time.Duration) {
		select {
		case end <- struct{}{}:
		default: // it was told already
		}
	})
	auto.Status("hello from Go")
	auto.Ready()
	<-end
}
