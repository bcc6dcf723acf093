package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"skywire/cmd/internal/lab"
)

const greeting = "the relay is gone, I am still here"

// proveMessage makes the client and the exit contacts by a link, and has each send the other a message, told as delivered by a
// signed receipt. One relay is dead by then.
func (d *demo) proveMessage(ctx context.Context) (string, error) {
	client, exit := d.box["client"], d.box["exit"]
	var link string
	err := lab.Wait(ctx, readyLimit, "the messenger of the exit", func(ctx context.Context) (err error) {
		link, err = exit.Skywire(ctx, "messenger", "contact", "invite", "--name", "client")
		return err
	})
	if err != nil {
		return "", err
	}
	err = lab.Wait(ctx, readyLimit, "the messenger of the client", func(ctx context.Context) error {
		_, err := client.Skywire(ctx, "messenger", "status")
		return err
	})
	if err != nil {
		return "", err
	}
	if _, err := client.Skywire(ctx, "messenger", "contact", "add", strings.TrimSpace(link), "--name", "exit"); err != nil {
		return "", err
	}
	// Whoever gave the link knows its bearer as soon as that one has shown it.
	err = lab.Wait(ctx, readyLimit, "the client at the exit", func(ctx context.Context) error {
		var c struct {
			Standing string `json:"standing"`
		}
		err := exit.SkywireJSON(ctx, &c, "messenger", "contact", "show", "client")
		if err == nil && c.Standing != "confirmed" {
			err = errors.New(c.Standing)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	began := time.Now()
	if err := d.show(ctx, client, "messenger", "send", "exit", "-w", "delivered", "--timeout", "30", greeting); err != nil {
		return "", err
	}
	took := time.Since(began)
	if _, err := exit.Skywire(ctx, "messenger", "send", "client", "-w", "delivered", "--timeout", "30", "so I hear"); err != nil {
		return "", err
	}
	words := strings.Fields(d.outside("exit", "tail"))
	out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), greeting) {
		return "", fmt.Errorf("the exit has: %s%w", out, errors.Join(errors.New("not what was sent"), err))
	}
	return fmt.Sprintf("delivered and receipted %d ms after the call", took.Milliseconds()), nil
}

// outside is a command that asks the messenger of a box from outside its namespaces: by a socket in a folder.
func (d *demo) outside(box string, words ...string) string {
	return strings.Join(append([]string{d.binary, "messenger"}, append(words, "--run", d.box[box].Run())...), " ")
}
