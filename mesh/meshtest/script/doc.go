// Package script lets an operator say what a mesh is made of and what happens to it, and tells what came of it: it reads
// scripts of one statement a line, runs them on mesh/meshtest, and returns a Report. The same script and seed give the same
// report, but for how long the machine took and what memory it used.
//
// It opens no socket and starts no node of this box; a script can harm nothing. Limits: a script has at most MaxNodes
// nodes, MaxEvents events, and runs for at most MaxRun of virtual time. Language is the language, for --help and people.
package script

// Language says how a script is written.
const Language = `A script is text, one statement a line; # begins a comment. Times are 300ms, 5s, 2m; shares are 1% or 0.01.

What there is:
  node NAME…  [skew D] [clock YEAR]           nodes; skew: ran so long before; clock: what its wall clock says
  line P K | ring P K | star P K  [WIRE]      K nodes P0, P1, … in a row, in a circle, around P0
  grid P W H [WIRE] | random P K DEGREE [WIRE]    nodes P0.0, P1.0, … ; K nodes with DEGREE links on average
  mesh FILE                                   the nodes and links that manager nodes --json printed
  link A B [WIRE]                             A dials B; WIRE is any of: delay D  jitter D  loss S  reorder S  duplicate S
                                              corrupt S  rate N (bit/s: 512k, 10m)  mtu N
  flow A B [every D] [size N]                 packets from A's TUN to B's, each 20ms, of 200 bytes

What happens, "at T EVENT", "every T EVENT", or "every T from T until T EVENT":
  kill NODES              as kill -9 would; NODES are names, any, or 50%
  start NODES [HOW]       HOW is stored (what save kept), lost (nothing, the default), restored (the oldest that was saved)
  restart NODES [HOW] [down D]    kill, start after D (1s)
  save NODES              the store is written
  move NODES              another address, as a phone that changes its network
  cut A B | mend A B      the wire between them; cut A, mend A: all of A's
  partition NODES | heal  cuts all wires between these and the others; heal mends every wire
  wire A B WIRE           the wire becomes so
  mark                    flows count gaps and losses from here on
  stop A B                the flow ends
  say TEXT

What is to be seen:
  expect reach A B [within D]     a ping from A is answered by then (2s)
  expect apart A B                no ping is answered for 2s
  expect gap A B < D              the longest silence of the flow since the last mark
  expect lost A B < S             the share of its packets that did not arrive since then
  expect path A B via C | avoiding C | direct
  expect equal                    connected nodes hold the same records
  expect idle                     no session, path or label is left (6m after the last packet)
  print path A B | flows | nodes | control
  survey                          pings pairs of nodes and tells what changed since the last survey

At the end:  run T  and, anywhere:  seed N

The whole mesh is held against its invariants each second (no loops, no label that means two things, nothing that hangs on
a node that may not be here).`
