# make build · man · test · check · bench · bench-e2e · bench-slow · bench-socks · fuzz · size · table · test-smallbox · repro · demo · packages · release · install · clean
# Go 1.26 is all that building needs; test and demo also use what .ci/run installs (iproute2, nftables, iperf3, curl …).

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
OUT       ?= build
PREFIX    ?= /usr/local
DESTDIR   ?=
BENCHTIME ?= 300ms
FUZZTIME  ?= 5s
# What makes packages. 2.48 does not build: a module that it needs is gone.
NFPM      := go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
# A package's version has digits first; a commit that is no release counts as 0.
comma           := ,
space           := $(subst ,, )
PACKAGE_VERSION ?= $(if $(filter v%,$(VERSION)),$(patsubst v%,%,$(VERSION)),0~$(VERSION))
# DEMO=check runs the demo without the shell at its end.
DEMO      ?=

export CGO_ENABLED ?= 0
export GOFLAGS     := -buildvcs=false -trimpath $(GOFLAGS)
LDFLAGS   := -s -w -buildid= -X skywire/cmd/internal/applet.version=$(VERSION)
BUILD     := $(GO) build -ldflags '$(LDFLAGS)'

# Budgets for a small MIPS router. They are more than the design's 12 MB and 3.0 MB packed, which is a debt, and stop the next part
# from growing unseen. The small variant (tag mini) shares most libraries and so has budgets near. Reasons: packaging/SIZE.md.
MIPSLE_MAX    := 16550000
MIPSLE_XZ_MAX := 3650000
MINI_MAX      := 14320000
MINI_XZ_MAX   := 3190000

# Small flash: mips builds inline only where packets pass, keys are checked and memory is
# collected. It saves 1 MB of 13; without inlining in the runtime 0.1 MB more, but a collection takes 2.3 times as long.
HOT := runtime internal/runtime/... internal/abi internal/goarch internal/byteorder internal/bytealg internal/cpu \
       sync/atomic math/bits encoding/binary net/netip \
       crypto/subtle crypto/cipher crypto/internal/fips140/subtle crypto/internal/fips140/alias \
       crypto/internal/fips140deps/... crypto/internal/fips140/edwards25519/... \
       golang.org/x/crypto/chacha20 golang.org/x/crypto/chacha20poly1305 golang.org/x/crypto/internal/... \
       golang.org/x/crypto/blake2s github.com/dchest/siphash filippo.io/... \
       skywire/mesh/forward skywire/mesh/session skywire/mesh/link/udp skywire/tun
SMALL := -gcflags=all=-l $(foreach p,$(HOT),-gcflags=$(p)=)
# Go lays mips out for pages of 64 KiB, which OpenWrt's kernels (4 KiB) and Debian's (16 KiB) do not have.
SMALL_LD := -R 0x4000

# A platform is GOOS-GOARCH, for arm and mips a variant, and -mini for the small one. skywire update has the same names.
CROSS := linux-amd64 linux-arm64 linux-arm-7 linux-mips-softfloat linux-mipsle-softfloat linux-riscv64
OTHER := darwin-arm64 windows-amd64
REPRO := linux-amd64 linux-mipsle-softfloat

part    = $(word $(2),$(subst -, ,$(1)))
small   = $(filter mips%,$(call part,$(1),2))
# $(call compile,PLATFORM) is the command that builds for it, up to what to build.
compile = $(call target,$(1)) $(GO) build $(call flags,$(1))
target  = GOOS=$(call part,$(1),1) GOARCH=$(call part,$(1),2) GOARM=$(if $(filter arm,$(call part,$(1),2)),$(call part,$(1),3)) \
          GOMIPS=$(if $(call small,$(1)),$(call part,$(1),3))
flags   = -ldflags '$(LDFLAGS)$(if $(call small,$(1)), $(SMALL_LD))' $(if $(call small,$(1)),$(SMALL)) $(if $(filter %-mini,$(1)),-tags mini)

# Packages whose tests are worth the race detector and need no root; first what takes longest. ALSO are folders with tests that look at
# testing.Short or at the race detector, and so have more to show without it. mesh/meshtest is not here: a mesh in it, its clock included,
# is one goroutine.
RACE  := ./supervisor/... ./mesh/node/... ./mesh/peering/... ./mesh/messenger/... ./mesh/stream/... \
         ./signal/... ./socks/... ./mesh/app/... ./mesh/forward/... ./mesh/link/... ./mesh/store/... ./mesh/manager/... ./mesh/tracker/... \
         ./mesh/meshtest/emulator ./packaging/... ./cmd/internal/...
ALSO  = grep -rlE 'testing\.Short\(\)|\<slow\(\)' --include='*_test.go' cmd mesh packaging signal socks supervisor tun | xargs -n1 dirname | sort -u | sed 's,^,./,'

.PHONY: all build man test test-unit test-race test-root check fmt vet staticcheck gate cross size size-list size-symbols repro reflect bench bench-e2e bench-slow bench-socks bench-doc fuzz demo packages install clean

all: build

build:
	@mkdir -p $(OUT)
	$(BUILD) -o $(OUT)/skywire ./cmd/skywire
	@$(OUT)/skywire install-links $(OUT)/bin --bare >/dev/null

# The manual pages of this version, from the same text as --help, and a look at them by whoever of mandoc and groff is there.
man: build
	@rm -rf $(OUT)/man
	@$(OUT)/skywire man $(OUT)/man >/dev/null
	@if command -v mandoc >/dev/null; then mandoc -Tlint -Wwarning $(OUT)/man/man?/*; fi
	@if command -v groff >/dev/null; then bad="$$(for p in $(OUT)/man/man?/*; do groff -ww -man -K utf8 -Tutf8 -z $$p; done 2>&1)"; \
	 if [ -n "$$bad" ]; then echo "$$bad"; exit 1; fi; fi

# One summary over three runs, of which each test has one at least, in random order: the packages with goroutines under the race
# detector; without it what that leaves out or judges less strictly (-short, slow()), and all other packages; and the real binary in
# namespaces (needs root; without it those tests say why they skip): there first what measures, one after the other, then what mostly
# waits, beside the emulators. .ci/summary runs up to three tests that failed once more, alone and with the flags of their run, and names
# what passes then unsteady.
E2E := $(GO) test -count=1 -timeout 50m -parallel 12 -run '^TestE2E'
test:
	@{ $(GO) test -json -p 3 -shuffle=on -timeout 8m -skip '^TestE2E' $$($(ALSO); $(GO) list ./... | grep -vxF -e "$$($(GO) list $(RACE))") ; \
	   echo '{"Action":"flags","Output":"-race -short"}' ; \
	   CGO_ENABLED=1 $(GO) test -json -p 3 -race -short -shuffle=on -timeout 8m -skip '^TestE2E' $(RACE) ; \
	   echo '{"Action":"flags"}' ; \
	   $(E2E) -json ./cmd/skywire ; } | $(GO) run ./.ci/summary

test-unit:
	$(GO) test -shuffle=on -timeout 10m -skip '^TestE2E' ./...

test-race:
	CGO_ENABLED=1 $(GO) test -race -short -shuffle=on -timeout 10m -skip '^TestE2E' $(RACE)

test-root:
	$(E2E) -v ./cmd/skywire

# Other processors, all that there are: tests and the program under qemu-user, real kernels under qemu-system. make test has
# the usual of both. ARCHES are platforms as below (test-vm: Debian's names), PACKAGES folders of the tests.
.PHONY: test-arch test-vm
test-arch:
	SKYWIRE_ARCH='$(or $(ARCHES),all)' SKYWIRE_ARCH_PACKAGES='$(PACKAGES)' $(GO) test -count=1 -v -timeout 60m -run '^TestE2EArch$$' ./cmd/skywire

test-vm:
	SKYWIRE_VM='$(subst $(space),$(comma),$(ARCHES))' $(GO) test -count=1 -v -timeout 30m -run '^TestE2E(VM|Kernel)$$' ./cmd/skywire

check: fmt vet staticcheck gate cross reflect repro size

fmt:
	@bad="$$($(GO) tool gofumpt -l cmd mesh tun socks signal supervisor packaging .ci)"; \
	if [ -n "$$bad" ]; then echo "gofumpt would change:"; echo "$$bad"; exit 1; fi

vet:
	$(GO) vet ./...
	$(GO) vet -tags bench,profile ./cmd/skywire

staticcheck:
	$(GO) tool staticcheck ./...

gate:
	$(GO) test -count=1 -skip '^TestE2E' ./cmd/skywire ./.ci/size ./.ci/summary

cross: $(addprefix cross-,$(CROSS) $(OTHER))

cross-%:
	@echo "build $*"
	@$(call compile,$*) -o $(OUT)/cross/skywire-$* ./cmd/skywire

# What a virtual machine of that platform runs beside skywire, and the tests of PACKAGES as programs for it.
guest-%:
	@$(call compile,$*) -o $(OUT)/vm/guest-$* ./cmd/internal/vm/guest

tests-%:
	@mkdir -p $(OUT)/arch/$*
	@$(call target,$*) $(GO) test -c -o $(OUT)/arch/$*/ $(call flags,$*) $(PACKAGES)

# packaging/size.txt says where the bytes lay when somebody last wrote it (size-list). What differs now is printed before the
# budgets, so that growth has a name; packaging/size-groups.txt has a budget for each library and part.
size: size-symbols
	@$(call compile,linux-mipsle-softfloat) -o $(OUT)/size-mipsle ./cmd/skywire
	@$(call compile,linux-mipsle-softfloat) -tags mini -o $(OUT)/size-mipsle-mini ./cmd/skywire
	@$(call compile,linux-arm64) -o $(OUT)/size-arm64 ./cmd/skywire
	@over=; $(GO) run ./.ci/size -base packaging/size.txt -groups packaging/size-groups.txt -top 12 $(OUT)/size-mipsle.sym || over=1; \
	$(call weigh,mipsle,$(MIPSLE_MAX),$(MIPSLE_XZ_MAX)); $(call weigh,mipsle-mini,$(MINI_MAX),$(MINI_XZ_MAX)); \
	$(call weigh,arm64,$(NO_MAX),$(NO_MAX)); [ -z "$$over" ]

weigh = raw=$$(wc -c <$(OUT)/size-$(1)); packed=$$(xz -9e -c $(OUT)/size-$(1) | wc -c); \
	echo "size $(1): $$raw bytes stripped, $$packed with xz"; \
	if [ $$raw -gt $(2) ] || [ $$packed -gt $(3) ]; then echo "over the budget of $(2) and $(3)"; over=1; fi
NO_MAX := 1000000000

size-list: size-symbols
	$(GO) run ./.ci/size $(OUT)/size-mipsle.sym >packaging/size.txt

size-symbols: LDFLAGS := $(filter-out -s,$(LDFLAGS))
size-symbols:
	@mkdir -p $(OUT)
	@$(call compile,linux-mipsle-softfloat) -o $(OUT)/size-mipsle.sym ./cmd/skywire

# The table of packaging/SIZE.md: builds for all processors, and memory and time on this machine and (TestE2EVM leaves build/arch.json)
# on others. A day of a small box in ten minutes, twice: as one process and as several, as root.
.PHONY: table test-smallbox
TABLE := linux-mipsle-softfloat linux-mips-softfloat linux-arm-5 linux-arm-6 linux-arm-7 linux-arm64 linux-amd64 linux-386 linux-riscv64 linux-loong64
table: $(addprefix cross-,$(TABLE))
	@.ci/tools table
	@$(GO) run ./.ci/table $(OUT)/cross $(OUT)/arch.json >$(OUT)/table.md
	@{ sed '/^<!-- table -->/q' packaging/SIZE.md; echo; cat $(OUT)/table.md; sed -n '/^<!-- end -->/,$$p' packaging/SIZE.md; } >$(OUT)/SIZE.md
	@mv $(OUT)/SIZE.md packaging/SIZE.md

test-smallbox: build
	SKYWIRE_BINARY=$(abspath $(OUT)/skywire) SKYWIRE_SMALLBOX=10m $(GO) test -count=1 -v -timeout 40m -run '^TestE2ESmallBox$$' ./cmd/skywire

# The same bytes from two folders, the second without anything compiled before.
repro:
	@rm -rf $(OUT)/repro
	@for d in one another/folder; do \
	  mkdir -p $(OUT)/repro/$$d; \
	  git ls-files -co --exclude-standard | while read -r f; do [ -e "$$f" ] && echo "$$f"; done | tar -c -T - | tar -x -C $(OUT)/repro/$$d; \
	done
	@for p in $(REPRO); do \
	  $(MAKE) -s --no-print-directory -C $(OUT)/repro/one cross-$$p OUT=out VERSION=$(VERSION) && \
	  GOCACHE=$(abspath $(OUT))/repro/cache $(MAKE) -s --no-print-directory -C $(OUT)/repro/another/folder cross-$$p OUT=out VERSION=$(VERSION) && \
	  cmp $(OUT)/repro/one/out/cross/skywire-$$p $(OUT)/repro/another/folder/out/cross/skywire-$$p && \
	  sha256sum $(OUT)/repro/one/out/cross/skywire-$$p || exit 1; \
	done

# A reflect.Method with a name the linker cannot see switches dead-code elimination off and costs megabytes.
reflect:
	@if $(GO) build -ldflags '-s -w -dumpdep' -o /dev/null ./cmd/skywire 2>&1 | grep '<ReflectMethod>'; then \
	  echo "dead-code elimination is off: see the dependencies above"; exit 1; fi

# Every stage on its own, with allocations.
bench:
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) -benchmem ./...

# The real binary in namespaces beside veth, kernel forwarding, a bare copy between TUN devices, wireguard-go, nebula, tinc
# and openvpn, in alternating rounds of one run: a quarter of an hour, as root. The SKYWIRE_BENCH_ variables that choose
# parts, rounds, profiles and the folder of the results stand in cmd/skywire/bench_e2e_linux_test.go.
bench-e2e:
	@.ci/tools bench
	$(GO) test -tags bench -count=1 -v -timeout 60m -run '^TestBench(E2E|Relay|Impair|QUIC)$$' ./cmd/skywire

# The same with a box that has one processor, without AES and without any offload.
bench-slow:
	@.ci/tools bench
	$(GO) test -tags bench -count=1 -v -timeout 60m -run '^TestBenchSlow$$' ./cmd/skywire

# The proxy beside microsocks and dante on one box, and over an exit 50 ms away beside ssh -D and microsocks through
# wireguard-go: five minutes, as root. SKYWIRE_BENCH_ variables: cmd/skywire/bench_socks_linux_test.go.
bench-socks:
	@.ci/tools bench
	$(GO) test -tags bench -count=1 -v -timeout 30m -run '^TestBenchSocks$$' ./cmd/skywire

# The last results of all three, part by part, become the figures of mesh/forward/BENCH.md and socks/BENCH.md.
bench-doc:
	@{ sed '/^<!-- figures -->/q' mesh/forward/BENCH.md; echo; \
	  for p in direct relay relay3 cut core forwarding impaired streams slow-direct slow-relay; do \
	    f=$(OUT)/bench/results/$$p.md; if [ -f $$f ]; then cat $$f; fi; \
	  done; sed -n '/^<!-- end -->/,$$p' mesh/forward/BENCH.md; } >$(OUT)/BENCH.md
	@mv $(OUT)/BENCH.md mesh/forward/BENCH.md
	@{ sed '/^<!-- figures -->/q' socks/BENCH.md; echo; \
	  for p in socks-local socks-far; do \
	    f=$(OUT)/bench/results/$$p.md; if [ -f $$f ]; then cat $$f; fi; \
	  done; sed -n '/^<!-- end -->/,$$p' socks/BENCH.md; } >$(OUT)/BENCH.md
	@mv $(OUT)/BENCH.md socks/BENCH.md

# viscript beside supervisord, s6 and runit of Debian, five minutes; the table goes into supervisor/BENCH.md.
.PHONY: bench-viscript
bench-viscript:
	@.ci/tools bench-viscript
	$(GO) test -tags bench -count=1 -v -timeout 15m -run '^TestBenchViscript$$' ./cmd/skywire
	@{ sed '/^<!-- figures -->/q' supervisor/BENCH.md; echo; cat $(OUT)/bench/results/viscript.md; \
	  sed -n '/^<!-- end -->/,$$p' supervisor/BENCH.md; } >$(OUT)/BENCH.md
	@mv $(OUT)/BENCH.md supervisor/BENCH.md

fuzz:
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	  done; \
	done

demo: build
	@$(GO) build -o $(OUT)/demo ./cmd/demo
	@s=; if [ "$$(id -u)" != 0 ] && command -v sudo >/dev/null && sudo -v; then s=sudo; fi; \
	$$s .ci/tools demo && $$s $(OUT)/demo -binary $(OUT)/skywire $(if $(filter check,$(DEMO)),-check)

# Packages of Linux distributions, for every platform that they know; packaging/README.md says what is in them.
PACKAGED := linux-amd64:deb,rpm,apk,archlinux linux-arm64:deb,rpm,apk,archlinux linux-arm-7:rpm,apk linux-arm-6:deb linux-arm-5:deb linux-riscv64:deb
packages: build
	@mkdir -p $(OUT)/packages
	@set -e; $(foreach p,$(PACKAGED),$(call compile,$(firstword $(subst :, ,$(p)))) -o $(OUT)/packages/skywire-$(firstword $(subst :, ,$(p))) ./cmd/skywire; \
	  BIN=$(OUT)/packages/skywire-$(firstword $(subst :, ,$(p))) TOOL=$(OUT)/skywire NFPM='$(NFPM)' \
	  packaging/build $(PACKAGE_VERSION) $(OUT)/packages $(firstword $(subst :, ,$(p))) $(subst $(comma), ,$(lastword $(subst :, ,$(p)))); )
	@set -e; $(foreach p,linux-amd64 linux-arm64 linux-arm-5 linux-arm-7 linux-mips-softfloat linux-mipsle-softfloat linux-riscv64,$(call compile,$(p)) -o $(OUT)/packages/skywire-$(p) ./cmd/skywire; \
	  BIN=$(OUT)/packages/skywire-$(p) TOOL=$(OUT)/skywire NFPM='$(NFPM)' packaging/openwrt/build $(PACKAGE_VERSION) $(OUT)/packages $(p); )
	@NFPM='$(NFPM)' packaging/openwrt/luci/build $(PACKAGE_VERSION) $(OUT)/packages
	@cd $(OUT)/packages && sha256sum * >SHA256SUMS && cat SHA256SUMS

# A release: every platform, full and mini, what installs it, SHA256SUMS, a bill of materials, images, archives, and a manifest for
# skywire update, signed where RELEASE_KEY names the file of a release key. MIN_VERSION is the oldest version that may change to it.
RELEASE_LINUX := linux-amd64 linux-386 linux-arm64 linux-arm-5 linux-arm-6 linux-arm-7 linux-mips-softfloat linux-mipsle-softfloat \
                 linux-riscv64 linux-loong64
RELEASE       := $(RELEASE_LINUX) $(addsuffix -mini,$(RELEASE_LINUX)) darwin-amd64 darwin-arm64 windows-amd64 windows-arm64
RELEASE_KEY   ?=
MIN_VERSION   ?=
SBOM          := go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0

.PHONY: release
release: build
	@rm -rf $(OUT)/release && mkdir -p $(OUT)/release
	@$(MAKE) --no-print-directory $(addprefix release-,$(RELEASE))
	@SBOM='$(SBOM)' GO='$(GO)' RELEASE_KEY='$(RELEASE_KEY)' MIN_VERSION='$(MIN_VERSION)' packaging/release $(VERSION) $(OUT)/release $(OUT)/skywire

release-%:
	@echo "build $*"
	@$(call compile,$*) -o $(OUT)/release/skywire-$*$(if $(filter windows-%,$*),.exe) ./cmd/skywire

install: build
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(OUT)/skywire $(DESTDIR)$(PREFIX)/bin/skywire
	$(DESTDIR)$(PREFIX)/bin/skywire install-links $(DESTDIR)$(PREFIX)/bin >/dev/null
	$(DESTDIR)$(PREFIX)/bin/skywire man $(DESTDIR)$(PREFIX)/share/man >/dev/null

clean:
	rm -rf $(OUT)
