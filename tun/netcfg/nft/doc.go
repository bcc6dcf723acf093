// Package nft writes nf_tables rules to the kernel and lists chains and rules: the few messages and expressions that the
// vpn's firewall needs, over one netlink socket a call. It replaces google/nftables, whose parsers for all expressions
// cost a router 300 kB of flash; it decodes no expression, knows no sets, maps or objects and keeps no state.
//
// Changes collect in a Batch, which the kernel takes as a whole or not at all. Expressions use register 1 alone.
package nft
