package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Capabilities are the names of Linux's capabilities, each at the place of its number (capabilities(7)).
func Capabilities() []string {
	return []string{
		"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable",
		"net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio",
		"sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time",
		"sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
		"wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
	}
}

// checkPrivileges checks what an app may and is given, and writes capabilities as the table does: net_admin.
func (a *App) checkPrivileges() error {
	for i, word := range a.Caps {
		name := strings.TrimPrefix(strings.ToLower(word), "cap_")
		if !slices.Contains(Capabilities(), name) {
			return fmt.Errorf("caps: no capability %q%s", word, Meant(name, Capabilities()))
		}
		a.Caps[i] = name
	}
	for name, file := range a.Secrets {
		if !goodName(name) {
			return fmt.Errorf("secrets: %q is no name of a file: letters, digits, '-', '_' and '.', and no number", name)
		}
		if file == "" {
			return fmt.Errorf("secrets.%s: the file is missing", name)
		}
	}
	if a.TTY && (a.Daemon || a.Inproc) {
		return errors.New("tty is for attach: leave daemon and inproc away")
	}
	if a.Inproc && (a.Caps != nil || a.NoNewPrivs || a.Secrets != nil) {
		return errors.New("caps, no_new_privs and secrets have no effect with inproc: true, the privileges belong to viscript's process")
	}
	return nil
}
