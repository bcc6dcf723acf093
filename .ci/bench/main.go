// Command bench runs wireguard-go on one TUN device, for `make bench` to compare with. It is a module of its own, so that
// its dependencies are not the project's; nothing is installed, and it does not configure the device's addresses.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

const usage = "usage: bench DEVICE PORT PRIVATE-KEY-HEX PEER-KEY-HEX PEER-ADDR:PORT"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("%s", usage)
	}
	t, err := tun.CreateTUN(args[0], device.DefaultMTU)
	if err != nil {
		return fmt.Errorf("make %s: %w", args[0], err)
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	defer d.Close()
	err = d.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%s\npublic_key=%s\nendpoint=%s\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n",
		args[2], args[1], args[3], args[4]))
	if err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	if err := d.Up(); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	return nil
}
