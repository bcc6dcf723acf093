package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// pageAddress is where viscript's page is in the client's namespace, and here: it goes by the port of its address.
const pageAddress = "127.0.0.1:7668"

// showPage prints the address that opens viscript's page, which is served in the client's namespace, and carries browsers of
// this machine there. Where it can't, it says why: the demo goes on.
func (d *demo) showPage(ctx context.Context) {
	address, err := d.box["client"].Skywire(ctx, "viscript", "web")
	if err != nil {
		fmt.Fprintln(d.out, "No web page:", err)
		return
	}
	l, err := net.Listen("tcp", pageAddress)
	if err != nil {
		fmt.Fprintf(d.out, "The client has a web page too, but this machine uses its port: %v\n\n", err)
		return
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() { // ends with the process
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.carryPage(c)
		}
	}()
	fmt.Fprintf(d.out, "Its web page, on this machine, once: %s\nAnother address: web\n\n", strings.TrimSpace(address))
}

// carryPage joins a browser's connection with the page.
func (d *demo) carryPage(browser net.Conn) {
	defer browser.Close()
	var page net.Conn
	err := d.box["client"].Enter(func() (err error) {
		page, err = net.DialTimeout("tcp", pageAddress, 5*time.Second) // a literal address: it stays on this thread
		return err
	})
	if err != nil {
		return
	}
	defer page.Close()
	go func() {
		_, _ = io.Copy(page, browser) // the end of either ends both
		_ = page.Close()
	}()
	_, _ = io.Copy(browser, page)
}
