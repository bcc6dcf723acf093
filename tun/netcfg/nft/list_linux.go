package nft

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Chain is a chain of any program. Hook is nil if packets only come by a jump.
type Chain struct {
	Table Table
	Name  string
	Hook  *Hook
}

// Rule is a rule as DelRule needs it.
type Rule struct {
	Handle  uint64
	Comment string
}

// Chains lists the chains of all tables.
func Chains() (list []Chain, err error) {
	err = again(func() error {
		list = nil
		return dump(unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN, Table{}, nil, func(body []byte) {
			list = append(list, parseChain(body))
		})
	})
	return list, err
}

// Rules lists the rules of one chain; a chain that is not there has none.
func Rules(t Table, chain string) (list []Rule, err error) {
	attrs := appendString(appendString(nil, unix.NFTA_RULE_TABLE, t.Name), unix.NFTA_RULE_CHAIN, chain)
	err = again(func() error {
		list = nil
		return dump(unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, t, attrs, func(body []byte) {
			if r, ofTable, ofChain := parseRule(body); ofTable == t.Name && ofChain == chain && body[0] == t.Family {
				list = append(list, r) // old kernels send the rules of all chains
			}
		})
	})
	return list, err
}

func again(list func() error) (err error) {
	for range listTries {
		if err = list(); !errors.Is(err, errChanged) {
			return err
		}
	}
	return err
}

// parseChain reads the body of a message: nfgenmsg, then attributes. What it does not understand it leaves out.
func parseChain(body []byte) (c Chain) {
	c.Table.Family = body[0]
	kind, policy := "", uint32(PolicyAccept)
	for a, v, rest, ok := nextAttr(body[4:]); ok; a, v, rest, ok = nextAttr(rest) {
		switch a {
		case unix.NFTA_CHAIN_TABLE:
			c.Table.Name = text(v)
		case unix.NFTA_CHAIN_NAME:
			c.Name = text(v)
		case unix.NFTA_CHAIN_TYPE:
			kind = text(v)
		case unix.NFTA_CHAIN_POLICY:
			policy = number(v)
		case unix.NFTA_CHAIN_HOOK:
			c.Hook = parseHook(v)
		}
	}
	if c.Hook != nil {
		c.Hook.Type, c.Hook.Policy = kind, policy
	}
	return c
}

func parseHook(b []byte) *Hook {
	h := &Hook{}
	for a, v, rest, ok := nextAttr(b); ok; a, v, rest, ok = nextAttr(rest) {
		switch a {
		case unix.NFTA_HOOK_HOOKNUM:
			h.Number = number(v)
		case unix.NFTA_HOOK_PRIORITY:
			h.Priority = int32(number(v))
		}
	}
	return h
}

func parseRule(body []byte) (r Rule, table, chain string) {
	for a, v, rest, ok := nextAttr(body[4:]); ok; a, v, rest, ok = nextAttr(rest) {
		switch a {
		case unix.NFTA_RULE_TABLE:
			table = text(v)
		case unix.NFTA_RULE_CHAIN:
			chain = text(v)
		case unix.NFTA_RULE_HANDLE:
			if len(v) == 8 {
				r.Handle = binary.BigEndian.Uint64(v)
			}
		case unix.NFTA_RULE_USERDATA:
			r.Comment = comment(v)
		}
	}
	return r, table, chain
}
