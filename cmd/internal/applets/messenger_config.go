//go:build !mini

package applets

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
)

// messengerConfig is the section "messenger" of config.yaml.
type messengerConfig struct {
	Account    string           `yaml:"account"`
	Name       string           `yaml:"name"`
	Strangers  string           `yaml:"strangers"`
	StampBits  int              `yaml:"stamp_bits"`
	Quota      string           `yaml:"quota"`
	RAM        bool             `yaml:"ram"`
	Passphrase string           `yaml:"passphrase_file"`
	Files      string           `yaml:"files"`
	FilesAuto  string           `yaml:"files_auto"`
	FilesMax   string           `yaml:"files_max"`
	FilesSpare string           `yaml:"files_spare"`
	Discreet   bool             `yaml:"discreet"`
	KeepFor    bool             `yaml:"keep_for_contacts"`
	Mailboxes  []string         `yaml:"mailboxes"`
	Hooks      []messenger.Hook `yaml:"hooks"`
}

// smallBox is the memory below which a box has the small store.
const smallBox = 192 << 20

// engine turns words into the engine's Config.
func (c messengerConfig) engine(f *applet.Flags) (conf messenger.Config, err error) {
	for _, s := range []struct {
		flag, text string
		into       *int64
	}{
		{"quota", c.Quota, &conf.Quota},
		{"files-auto", c.FilesAuto, &conf.Files.Auto},
		{"files-max", c.FilesMax, &conf.Files.Max},
		{"files-spare", c.FilesSpare, &conf.Files.Spare},
	} {
		if *s.into, err = parseBytes(s.text); err != nil {
			return conf, applet.Usagef("--%s: %v", s.flag, err)
		}
	}
	if conf.Quota == 0 {
		conf.Quota = 64 << 20
		if memory, ok := memoryOfBox(); ok && memory < smallBox {
			conf.Quota = messenger.DefaultQuota
		}
	}
	if conf.Quota < 256<<10 {
		return conf, applet.Usagef("--quota %s: at least 256KB", c.Quota)
	}
	if c.Account != "self" && c.Account != "cluster" {
		return conf, applet.Usagef("--account %s: self or cluster", c.Account)
	}
	strangers, err := messenger.ParseStrangers(c.Strangers)
	if err != nil {
		return conf, applet.Usagef("--strangers: %v", err)
	}
	if c.StampBits < 8 || c.StampBits > envelope.MaxStamp {
		return conf, applet.Usagef("--stamp-bits %d: 8 to %d", c.StampBits, envelope.MaxStamp)
	}
	conf.Policy = messenger.Policy{Strangers: strangers, Bits: uint8(c.StampBits), Bytes: conf.Quota / 10}
	if conf.Name = c.Name; conf.Name == "" {
		conf.Name, _ = os.Hostname()
	}
	if !envelope.ValidName(conf.Name) {
		return conf, applet.Usagef("--name %q: want at most %d bytes that can be printed", conf.Name, envelope.MaxName)
	}
	if len(c.Mailboxes) > envelope.MaxMailboxes {
		return conf, applet.Usagef("--mailbox: %d at most", envelope.MaxMailboxes)
	}
	for _, text := range c.Mailboxes {
		l, err := envelope.ParseLink(text)
		if err != nil {
			return conf, applet.Usagef("--mailbox: %v", err)
		}
		conf.Mailboxes = append(conf.Mailboxes, envelope.Mailbox{Device: l.Account, Place: l.Place})
	}
	for _, h := range c.Hooks {
		if err := h.Validate(); err != nil {
			return conf, applet.Usagef("messenger: hooks: %v", err)
		}
	}
	if conf.Files.Free = freeBytes; c.Files != "" {
		if conf.Files.Folder, err = filepath.Abs(c.Files); err == nil {
			err = os.MkdirAll(conf.Files.Folder, 0o700)
		}
	}
	conf.Discreet, conf.KeepFor, conf.Log = c.Discreet, c.KeepFor, f.Logger()
	return conf, err
}

// memoryOfBox is what the box has, where the kernel tells.
func memoryOfBox() (bytes uint64, ok bool) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			n, err := strconv.ParseUint(f[1], 10, 54)
			return n << 10, err == nil
		}
	}
	return 0, false
}

// parseBytes takes 64KB, 4MB, 1GB or a number of bytes; nothing is 0.
func parseBytes(s string) (int64, error) {
	number, unit := strings.ToUpper(s), int64(1)
	for i, suffix := range []string{"KB", "MB", "GB"} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = n, 1<<(10*(i+1))
		}
	}
	if number == "" {
		number = "0"
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q: want a size, as 64KB, 4MB or 1GB", s)
	}
	return int64(n) * unit, nil
}
