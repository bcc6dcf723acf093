package nft

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Expr is a run of encoded expressions, as a rule holds them.
type Expr []byte

// Join puts expressions after each other: all must match before what stands last is done.
func Join(parts ...Expr) Expr { return slices.Concat(parts...) }

// one encodes an expression: its name and the attributes of its data.
func one(name string, data []byte) Expr {
	e := appendString(nil, unix.NFTA_EXPR_NAME, name)
	e = appendNested(e, unix.NFTA_EXPR_DATA, data)
	return appendNested(nil, unix.NFTA_LIST_ELEM, e)
}

// register holds what is compared: the first of those that every kernel has.
const register = unix.NFT_REG_1

// Meta loads what the kernel knows of the packet (unix.NFT_META_…).
func Meta(key uint32) Expr {
	return one("meta", append32(append32(nil, unix.NFTA_META_KEY, key), unix.NFTA_META_DREG, register))
}

// SetMeta stores what was loaded.
func SetMeta(key uint32) Expr {
	return one("meta", append32(append32(nil, unix.NFTA_META_KEY, key), unix.NFTA_META_SREG, register))
}

// Ct loads what the kernel knows of the packet's connection (unix.NFT_CT_…).
func Ct(key uint32) Expr {
	return one("ct", append32(append32(nil, unix.NFTA_CT_KEY, key), unix.NFTA_CT_DREG, register))
}

// SetCt stores what was loaded.
func SetCt(key uint32) Expr {
	return one("ct", append32(append32(nil, unix.NFTA_CT_KEY, key), unix.NFTA_CT_SREG, register))
}

// Payload loads length bytes of the header that base names (unix.NFT_PAYLOAD_…).
func Payload(base, offset, length uint32) Expr {
	b := append32(nil, unix.NFTA_PAYLOAD_DREG, register)
	b = append32(b, unix.NFTA_PAYLOAD_BASE, base)
	b = append32(b, unix.NFTA_PAYLOAD_OFFSET, offset)
	return one("payload", append32(b, unix.NFTA_PAYLOAD_LEN, length))
}

// And masks what was loaded.
func And(mask []byte) Expr {
	b := append32(nil, unix.NFTA_BITWISE_SREG, register)
	b = append32(b, unix.NFTA_BITWISE_DREG, register)
	b = append32(b, unix.NFTA_BITWISE_LEN, uint32(len(mask)))
	b = appendNested(b, unix.NFTA_BITWISE_MASK, appendAttr(nil, unix.NFTA_DATA_VALUE, mask))
	return one("bitwise", appendNested(b, unix.NFTA_BITWISE_XOR, appendAttr(nil, unix.NFTA_DATA_VALUE, make([]byte, len(mask)))))
}

// Is matches if what was loaded is data.
func Is(data []byte) Expr { return compare(unix.NFT_CMP_EQ, data) }

// IsNot matches if what was loaded is not data.
func IsNot(data []byte) Expr { return compare(unix.NFT_CMP_NEQ, data) }

func compare(op uint32, data []byte) Expr {
	b := append32(nil, unix.NFTA_CMP_SREG, register)
	b = append32(b, unix.NFTA_CMP_OP, op)
	return one("cmp", appendNested(b, unix.NFTA_CMP_DATA, appendAttr(nil, unix.NFTA_DATA_VALUE, data)))
}

// RouteMSS loads the largest TCP segment that fits the packet's route.
func RouteMSS() Expr {
	return one("rt", append32(append32(nil, unix.NFTA_RT_KEY, unix.NFT_RT_TCPMSS), unix.NFTA_RT_DREG, register))
}

// Swap16 turns a 16-bit number of the machine's byte order into one of the network's.
func Swap16() Expr {
	b := append32(nil, unix.NFTA_BYTEORDER_SREG, register)
	b = append32(b, unix.NFTA_BYTEORDER_DREG, register)
	b = append32(b, unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
	b = append32(b, unix.NFTA_BYTEORDER_LEN, 2)
	return one("byteorder", append32(b, unix.NFTA_BYTEORDER_SIZE, 2))
}

// SetTCPOption stores length bytes at the offset in an option of the TCP header. The kernel only ever lowers an MSS.
func SetTCPOption(option byte, offset, length uint32) Expr {
	b := append32(nil, unix.NFTA_EXTHDR_SREG, register)
	b = appendAttr(b, unix.NFTA_EXTHDR_TYPE, []byte{option})
	b = append32(b, unix.NFTA_EXTHDR_OFFSET, offset)
	b = append32(b, unix.NFTA_EXTHDR_LEN, length)
	return one("exthdr", append32(b, unix.NFTA_EXTHDR_OP, unix.NFT_EXTHDR_OP_TCPOPT))
}

// Masquerade gives the packet the address of the device it leaves by.
func Masquerade() Expr { return one("masq", nil) }

// Reject answers, in an inet table, with the ICMP of the packet's family (unix.NFT_REJECT_ICMPX_…).
func Reject(code byte) Expr {
	b := append32(nil, unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMPX_UNREACH)
	return one("reject", appendAttr(b, unix.NFTA_REJECT_ICMP_CODE, []byte{code}))
}

// Accept lets the packet through this table.
func Accept() Expr { return verdict(PolicyAccept, "") }

// Drop drops the packet without a word.
func Drop() Expr { return verdict(PolicyDrop, "") }

// Jump goes on in another chain of the table and comes back from its end.
func Jump(chain string) Expr { return verdict(unix.NFT_JUMP, chain) }

func verdict(code int32, chain string) Expr {
	v := append32(nil, unix.NFTA_VERDICT_CODE, uint32(code))
	if chain != "" {
		v = appendString(v, unix.NFTA_VERDICT_CHAIN, chain)
	}
	b := append32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	return one("immediate", appendNested(b, unix.NFTA_IMMEDIATE_DATA, appendNested(nil, unix.NFTA_DATA_VERDICT, v)))
}

// Native32 is a number as Meta and Ct load it.
func Native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
