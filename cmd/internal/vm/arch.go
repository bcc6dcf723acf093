package vm

// Arch is a processor with a Debian kernel that qemu boots.
type Arch struct {
	Name     string   // Debian's name
	Platform string   // the Makefile's, for the binary that it runs
	Suites   []string // of Debian; the first that has the kernel counts
	Flavour  string   // of the kernel: linux-image-FLAVOUR
	Qemu     string
	Machine  []string // arguments that choose machine and processor
	Console  string
	Wall     bool // the guest's clock is the wall's, see Boot
}

// Arches are the small boards of routers that Debian has a kernel for and qemu a machine, and the amd64 that the rest is
// compared with. Debian's last kernel for big-endian MIPS is of 2019; its kernels for arm 5 and 6 are for boards of their
// own (marvell, rpi) and are not here.
func Arches() []Arch {
	return []Arch{
		{"arm64", "linux-arm64", []string{"bookworm"}, "arm64", "qemu-system-aarch64", []string{"-M", "virt", "-cpu", "cortex-a53"}, "ttyAMA0", false},
		{"armhf", "linux-arm-7", []string{"bookworm"}, "armmp", "qemu-system-arm", []string{"-M", "virt", "-cpu", "cortex-a7"}, "ttyAMA0", false},
		{"mipsel", "linux-mipsle-softfloat", []string{"bookworm"}, "4kc-malta", "qemu-system-mipsel", []string{"-M", "malta", "-cpu", "24Kc"}, "ttyS0", true},
		{"riscv64", "linux-riscv64", []string{"trixie", "forky"}, "riscv64", "qemu-system-riscv64", []string{"-M", "virt"}, "ttyS0", false},
		{"amd64", "linux-amd64", []string{"bookworm"}, "amd64", "qemu-system-x86_64", []string{"-cpu", "max"}, "ttyS0", false},
	}
}
