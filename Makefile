# make build · man · test · check · bench · bench-e2e · bench-slow · bench-socks · fuzz · size · repro · demo · packages · install · clean
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
PACKAGE_VERSION ?= $(if $(filter v%,$(VERSION)),$(patsubst v%,%,$(VERSION)),0~$(VERSION))
# DEMO=check runs the demo without the shell at its end.
DEMO      ?=

export CGO_ENABLED ?= 0
export GOFLAGS     := -buildvcs=false -trimpath $(GOFLAGS)
LDFLAGS   := -s -w -buildid= -X skywire/cmd/internal/applet.version=$(VERSION)
BUILD     := $(GO) build -ldflags '$(LDFLAGS)'

# Budgets for a small MIPS router. They are more than the design's 12 MB and 3.0 MB packed, which is a debt, and stop the next part
# from growing unseen. The small variant (tag mini) shares most libraries and so has budgets near. Reasons: packaging/SIZE.md.
MIPSLE_MAX    := 14750000
MIPSLE_XZ_MAX := 3270000
MINI_MAX      := 14300000
MINI_XZ_MAX   := 3180000

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

# A platform is GOOS-GOARCH, and for arm and mips a variant.
CROSS := linux-amd64 linux-arm64 linux-arm-7 linux-mips-softfloat linux-mipsle-softfloat linux-riscv64
OTHER := darwin-arm64 windows-amd64
REPRO := linux-amd64 linux-mipsle-softfloat

part    = $(word $(2),$(subst -, ,$(1)))
small   = $(filter mips%,$(call part,$(1),2))
# $(call compile,PLATFORM) is the command that builds for it, up to what to build.
compile = GOOS=$(call part,$(1),1) GOARCH=$(call part,$(1),2) GOARM=$(if $(filter arm,$(call part,$(1),2)),$(call part,$(1),3)) \
          GOMIPS=$(if $(call small,$(1)),$(call part,$(1),3)) \
          $(GO) build -ldflags '$(LDFLAGS)$(if $(call small,$(1)), $(SMALL_LD))' $(if $(call small,$(1)),$(SMALL))

# Packages whose tests are worth the race detector and need no root.
RACE  := ./signal/... ./supervisor/... ./socks/... ./mesh/app/... ./mesh/forward/... ./mesh/link/... ./mesh/node/... \
         ./mesh/stream/... ./mesh/store/... ./mesh/manager/... ./mesh/tracker/... ./mesh/meshtest/... ./cmd/internal/...

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

# One summary over three runs: everything once in random order, the packages with goroutines under the race detector,
# and the real binary in namespaces (needs root; without it those tests say why they skip).
test:
	@{ $(GO) test -json -shuffle=on -timeout 10m -skip '^TestE2E' ./... ; \
	   CGO_ENABLED=1 $(GO) test -json -race -short -shuffle=on -timeout 10m -skip '^TestE2E' $(RACE) ; \
	   $(GO) test -json -count=1 -timeout 30m -parallel 4 -run '^TestE2E' ./cmd/skywire ; } | $(GO) run ./.ci/summary

test-unit:
	$(GO) test -shuffle=on -timeout 10m -skip '^TestE2E' ./...

test-race:
	CGO_ENABLED=1 $(GO) test -race -short -shuffle=on -timeout 10m -skip '^TestE2E' $(RACE)

test-root:
	$(GO) test -count=1 -v -timeout 30m -parallel 4 -run '^TestE2E' ./cmd/skywire

check: fmt vet staticcheck gate cross reflect repro size

fmt:
	@bad="$$($(GO) tool gofumpt -l cmd mesh tun socks signal supervisor .ci)"; \
	if [ -n "$$bad" ]; then echo "gofumpt would change:"; echo "$$bad"; exit 1; fi

vet:
	$(GO) vet ./...
	$(GO) vet -tags bench,profile ./cmd/skywire

staticcheck:
	$(GO) tool staticcheck ./...

gate:
	$(GO) test -count=1 -skip '^TestE2E' ./cmd/skywire

cross: $(addprefix cross-,$(CROSS) $(OTHER))

cross-%:
	@echo "build $*"
	@$(call compile,$*) -o $(OUT)/cross/skywire-$* ./cmd/skywire

# packaging/size.txt says where the bytes lay when somebody last wrote it (size-list). What differs now is printed before the
# budgets, so that growth has a name.
size: size-symbols
	@$(call compile,linux-mipsle-softfloat) -o $(OUT)/size-mipsle ./cmd/skywire
	@$(call compile,linux-mipsle-softfloat) -tags mini -o $(OUT)/size-mipsle-mini ./cmd/skywire
	@$(call compile,linux-arm64) -o $(OUT)/size-arm64 ./cmd/skywire
	@$(GO) run ./.ci/size -base packaging/size.txt -top 12 $(OUT)/size-mipsle.sym
	@over=; $(call weigh,mipsle,$(MIPSLE_MAX),$(MIPSLE_XZ_MAX)); $(call weigh,mipsle-mini,$(MINI_MAX),$(MINI_XZ_MAX)); \
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
	@cd $(OUT)/packages && sha256sum * >SHA256SUMS && cat SHA256SUMS

install: build
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(OUT)/skywire $(DESTDIR)$(PREFIX)/bin/skywire
	$(DESTDIR)$(PREFIX)/bin/skywire install-links $(DESTDIR)$(PREFIX)/bin >/dev/null
	$(DESTDIR)$(PREFIX)/bin/skywire man $(DESTDIR)$(PREFIX)/share/man >/dev/null

clean:
	rm -rf $(OUT)
