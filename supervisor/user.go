package supervisor

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// confine has a program run with the privileges of an app.
func confine(spec *proc.Spec, a *config.App) (err error) {
	spec.NoNewPrivs = a.NoNewPrivs
	if a.Caps != nil {
		spec.Caps = []int{}
		for _, name := range a.Caps {
			spec.Caps = append(spec.Caps, slices.Index(config.Capabilities(), name))
		}
	}
	spec.User, err = userOf(a)
	return err
}

// userOf is who an app runs as; nil: as viscript. Names are looked up in /etc, as a static program can.
func userOf(a *config.App) (*proc.User, error) {
	if a.User == "" && a.Group == "" {
		return nil, nil
	}
	u := proc.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	name := ""
	if a.User != "" {
		fields, err := accountOf("/etc/passwd", a.User)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", a.User, err)
		}
		name, u.UID, u.GID = fields.name, fields.id, fields.group
	}
	u.Groups = groupsOf("/etc/group", name)
	if a.Group != "" {
		fields, err := accountOf("/etc/group", a.Group)
		if err != nil {
			return nil, fmt.Errorf("group %q: %w", a.Group, err)
		}
		u.GID = fields.id
	}
	return &u, nil
}

type account struct {
	name      string
	id, group uint32
}

// accountOf finds a name or number in passwd or group. A number need not be there.
func accountOf(path, word string) (account, error) {
	number, nerr := strconv.ParseUint(word, 10, 32)
	f, err := os.Open(path)
	if err != nil && nerr != nil {
		return account{}, err
	}
	if err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			p := strings.Split(lines.Text(), ":")
			if len(p) < 3 || p[0] != word && p[2] != word {
				continue
			}
			a := account{name: p[0]}
			id, err := strconv.ParseUint(p[2], 10, 32)
			if err != nil {
				continue
			}
			a.id, a.group = uint32(id), uint32(id)
			if len(p) > 3 {
				if g, err := strconv.ParseUint(p[3], 10, 32); err == nil {
					a.group = uint32(g)
				}
			}
			return a, nil
		}
	}
	if nerr != nil {
		return account{}, fmt.Errorf("not in %s", path)
	}
	return account{id: uint32(number), group: uint32(number)}, nil
}

// groupsOf are the groups that have a user as a member.
func groupsOf(path, user string) (ids []uint32) {
	f, err := os.Open(path)
	if err != nil || user == "" {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		p := strings.Split(lines.Text(), ":")
		if len(p) != 4 {
			continue
		}
		for member := range strings.SplitSeq(p[3], ",") {
			if id, err := strconv.ParseUint(p[2], 10, 32); err == nil && member == user {
				ids = append(ids, uint32(id))
			}
		}
	}
	return ids
}
