// Package vm boots Debian's kernels for other processors under qemu, without KVM and without a disk: a kernel of apt, an
// initramfs made here of busybox, a skywire and a guest program (cmd/internal/vm/guest), and a serial console on which the
// guest says what it saw.
//
// It knows nothing of what the guest does, installs nothing on the machine and needs no root. Linux only, with apt, dpkg,
// qemu-system and xz.
//
// Rules: packages are checked by apt against Debian's keys and kept under a cache folder, so a second boot needs no
// network; a folder there is complete or absent. A boot ends with its context, and qemu with it.
package vm
