package main

import (
	"fmt"
	"strings"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// runWireguard is wireguard-go as its own main runs it, configured by words: three a peer.
func runWireguard(name, port, private string, peers []string) error {
	t, err := tun.CreateTUN(name, device.DefaultMTU)
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	defer d.Close()
	conf := fmt.Sprintf("private_key=%s\nlisten_port=%s\n", private, port)
	for i := 0; i < len(peers); i += 3 {
		conf += fmt.Sprintf("public_key=%s\nendpoint=%s\n", peers[i], peers[i+1])
		for _, allowed := range strings.Split(peers[i+2], ",") {
			conf += "allowed_ip=" + allowed + "\n"
		}
	}
	if err := d.IpcSet(conf); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	if err := d.Up(); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	untilStopped()
	return nil
}
