package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Table names a table; Family is unix.NFPROTO_INET or another.
type Table struct {
	Family uint8
	Name   string
}

// Hook is where the packets of a base chain come from, and what becomes of those that no rule judges.
type Hook struct {
	Type     string // "filter" or "nat"
	Number   uint32 // unix.NF_INET_…
	Priority int32
	Policy   uint32 // PolicyAccept or PolicyDrop
}

// What becomes of a packet.
const (
	PolicyDrop   = 0
	PolicyAccept = 1
)

// Batch collects changes. The zero value is empty.
type Batch struct {
	b        []byte
	last     int // where the last message begins
	messages uint32
}

const (
	messageHeader = unix.NLMSG_HDRLEN + 4 // nlmsghdr, nfgenmsg
	beginSeq      = 1
)

// add appends a message: nlmsghdr (length, type, flags, sequence, port), nfgenmsg (family, version, subsystem).
func (b *Batch) add(kind uint16, flags uint16, family uint8, subsystem uint16, attrs []byte) {
	b.last = len(b.b)
	b.b = appendMessage(b.b, kind, unix.NLM_F_REQUEST|flags, beginSeq+b.messages, family, subsystem, attrs)
	b.messages++
}

func appendMessage(b []byte, kind, flags uint16, seq uint32, family uint8, subsystem uint16, attrs []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(messageHeader+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, subsystem)
	return append(b, attrs...)
}

// change appends a message of nf_tables, after the one that begins a batch.
func (b *Batch) change(kind, flags uint16, t Table, attrs []byte) {
	if b.messages == 0 {
		b.add(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	b.add(tablesMessage(kind), flags, t.Family, 0, attrs)
}

func tablesMessage(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }

// AddTable makes the table if it is not there.
func (b *Batch) AddTable(t Table) {
	b.change(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t, appendString(nil, unix.NFTA_TABLE_NAME, t.Name))
}

// DelTable deletes the table with all that is in it.
func (b *Batch) DelTable(t Table) {
	b.change(unix.NFT_MSG_DELTABLE, 0, t, appendString(nil, unix.NFTA_TABLE_NAME, t.Name))
}

// AddChain makes a chain; with h nil, one that only a Jump leads to.
func (b *Batch) AddChain(t Table, name string, h *Hook) {
	a := appendString(nil, unix.NFTA_CHAIN_TABLE, t.Name)
	a = appendString(a, unix.NFTA_CHAIN_NAME, name)
	if h != nil {
		hook := append32(nil, unix.NFTA_HOOK_HOOKNUM, h.Number)
		hook = append32(hook, unix.NFTA_HOOK_PRIORITY, uint32(h.Priority))
		a = appendNested(a, unix.NFTA_CHAIN_HOOK, hook)
		a = append32(a, unix.NFTA_CHAIN_POLICY, h.Policy)
		a = appendString(a, unix.NFTA_CHAIN_TYPE, h.Type)
	}
	b.change(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, t, a)
}

// AddRule puts a rule at the end of a chain.
func (b *Batch) AddRule(t Table, chain string, e Expr) {
	b.change(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, t, rule(t, chain, e))
}

// InsertRule puts a rule at the head of a chain, with a comment that nft shows and Rules returns.
func (b *Batch) InsertRule(t Table, chain, comment string, e Expr) {
	a := appendAttr(rule(t, chain, e), unix.NFTA_RULE_USERDATA, userData(comment))
	b.change(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE, t, a)
}

func rule(t Table, chain string, e Expr) []byte {
	a := appendString(nil, unix.NFTA_RULE_TABLE, t.Name)
	a = appendString(a, unix.NFTA_RULE_CHAIN, chain)
	return appendNested(a, unix.NFTA_RULE_EXPRESSIONS, e)
}

// DelRule deletes the rule with the handle that Rules returned.
func (b *Batch) DelRule(t Table, chain string, handle uint64) {
	a := appendString(nil, unix.NFTA_RULE_TABLE, t.Name)
	a = appendString(a, unix.NFTA_RULE_CHAIN, chain)
	b.change(unix.NFT_MSG_DELRULE, 0, t, append64(a, unix.NFTA_RULE_HANDLE, handle))
}

// User data of a rule is a list of type 1 | length 1 | value; nft keeps a rule's comment there.
const commentType = 0

func userData(comment string) []byte {
	comment = comment[:min(len(comment), maxComment)]
	return append(append([]byte{commentType, byte(len(comment) + 1)}, comment...), 0)
}

// maxComment is NFTNL_UDATA_COMMENT_MAXLEN, with the zero at its end.
const maxComment = 127

// comment finds the comment in user data.
func comment(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		if data[0] == commentType {
			return text(data[2 : 2+int(data[1])])
		}
		data = data[2+int(data[1]):]
	}
	return ""
}
