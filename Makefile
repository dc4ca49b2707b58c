# What is built lands in dist/. `make help` lists the targets.

GO       ?= go
DIST     := dist
VERSION  ?= $(shell packaging/version.sh)
FUZZTIME ?= 10s
COUNT    ?= 3

# The same sources give the same bytes: nothing of this machine gets in, and of the checkout only its version.
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false
LDFLAGS := -s -w -X main.version=$(VERSION)

# The name of a box is GOOS-GOARCH, with v and GOARM behind arm.
BOXES       := linux-amd64 linux-arm64 linux-armv7
HOST        := $(patsubst %-arm,%-armv7,$(shell $(GO) env GOOS)-$(shell $(GO) env GOARCH))
linux-amd64 := GOOS=linux GOARCH=amd64
linux-arm64 := GOOS=linux GOARCH=arm64
linux-armv7 := GOOS=linux GOARCH=arm GOARM=7

ACTORS := $(patsubst examples/%/main.go,$(DIST)/actors/%.wasm,$(wildcard examples/*/main.go))

# The zoo is in WebAssembly text. Those that are not let in go to hostile/refused.
ifneq ($(shell command -v wat2wasm),)
HOSTILE := $(patsubst examples/%.wat,$(DIST)/actors/%.wasm,$(wildcard examples/hostile/*.wat examples/hostile/refused/*.wat))
endif

.DELETE_ON_ERROR:
.PHONY: FORCE
FORCE:

##@ Building

.PHONY: build
build: $(DIST)/edged $(BOXES:%=$(DIST)/edged-%) ## dist/edged for this machine, dist/edged-linux-{amd64,arm64,armv7}

# The go command knows best what is out of date.
$(BOXES:%=$(DIST)/edged-%): $(DIST)/edged-%: FORCE
	$($*) $(GOBUILD) -ldflags "$(LDFLAGS)" -o $@ ./cmd/edged

ifneq ($(filter $(HOST),$(BOXES)),)
$(DIST)/edged: $(DIST)/edged-$(HOST)
	ln -f $< $@
else
$(DIST)/edged: FORCE
	$(GOBUILD) -ldflags "$(LDFLAGS)" -o $@ ./cmd/edged
endif

.PHONY: actors
actors: $(ACTORS) $(HOSTILE) ## dist/actors/<name>.wasm of each example with a main.go; hostile/ where wat2wasm is there

$(DIST)/actors/%.wasm: FORCE
	GOOS=wasip1 GOARCH=wasm $(GOBUILD) -buildmode=c-shared -ldflags "-s -w" -o $@ ./examples/$*

$(HOSTILE): $(DIST)/actors/%.wasm: examples/%.wat
	@mkdir -p $(@D)
	wat2wasm --enable-tail-call $< -o $@

.PHONY: demo
demo: $(DIST)/edged $(DIST)/demo/greenhouse ## build, and show the whole path at work in one terminal (DEMO="--forever" for more)
	$(DIST)/edged demo $(DEMO)

# The example as an app: its manifest with its module.
.PHONY: $(DIST)/demo/greenhouse
$(DIST)/demo/greenhouse: $(DIST)/actors/thermostat.wasm
	mkdir -p $@
	cp examples/thermostat/app.toml $< $@

##@ Proving

# What starts boxes as processes, the ten thousands of power cuts, and the rewriter of modules, which has no goroutine and
# thousands of modules to compile, run without the race detector here; make race has all of it.
WHOLE := ./test/... ./internal/demo ./internal/powercut ./runtime/meter

.PHONY: test
test: needs check ## everything: installs what the tests start, make check, all tests, raced where it fits
	@race=-race; command -v gcc >/dev/null || { race=; echo "no gcc: the tests run without the race detector" >&2; }; \
	set -x; $(GO) test $$race -timeout 40m $$($(GO) list ./... | grep -vxF "$$($(GO) list $(WHOLE))") && \
	$(GO) test -timeout 40m $(WHOLE)

.PHONY: needs
needs: ## the programs that tests start: Mosquitto and others (apt-get when root, else it says what to install)
	@test/needs.sh

.PHONY: check
check: ## format, vet, staticcheck, modules, house rules, the unit's hardening
	@test/check.sh

.PHONY: race
race: ## all tests under the race detector, twice and shuffled
	$(GO) test -race -shuffle=on -count=2 -timeout 40m ./...

.PHONY: integration
integration: needs ## whole boxes against real parts: Mosquitto, a hub, links that break
	$(GO) test -count=1 -timeout 20m ./test/... ./internal/node ./internal/demo

.PHONY: encoded
encoded: ## tests of whole boxes with every call put through the encoding of the lattice
	EDGED_ENCODE=1 $(GO) test -count=1 -timeout 20m ./internal/node ./test/e2e

.PHONY: foreign
foreign: needs ## actors in C, Rust and AssemblyScript and with the TinyGo kit's library (installs their compilers when root)
	@test/actors/needs.sh
	$(GO) test -tags foreign -count=1 -timeout 20m ./test/actors

.PHONY: zoo
zoo: needs ## each hostile actor beside a well-behaved one, for some minutes; on a machine that has nothing else to do
	EDGED_ZOO=all $(GO) test -count=1 -timeout 40m -v -run Zoo ./test/box
	EDGED_ZOO=all EDGED_ZOO_SMALL=1 $(GO) test -count=1 -timeout 40m -v -run Zoo_beside ./test/box # with 64 MiB

.PHONY: crash
crash: needs ## the tests that kill, COUNT times (3), each with another seed, and 10,000 messages for a box that was away
	EDGED_DOWN_MESSAGES=10000 $(GO) test -count=$(COUNT) -timeout 40m -run '[Cc]rash|[Kk]ill' ./...

.PHONY: lattice
lattice: needs ## three boxes and a hub in networks of their own that lose and delay packets, with boxes, lines and the hub failing at random for some minutes
	EDGED_LATTICE=long $(GO) test -count=1 -timeout 40m -v -run 'Lattice' ./test/e2e

.PHONY: powercut
powercut: $(DIST)/edged ## N power cuts (1000000), each with its SEED (1), of a store in DIR
	$(DIST)/edged selftest powercut --states $(or $(N),1000000) --seed $(or $(SEED),1) $(DIR:%=--dir %)

.PHONY: engines
engines: needs ## all tests of the actor host in the interpreter, here and as on ARM v7 (qemu-user)
	EDGED_TEST_ENGINES=all $(GO) test -count=1 -timeout 30m ./test/engines

.PHONY: gpio
gpio: ## providers/gpio on a virtual board with a real GPIO chip (qemu-system-arm, minutes)
	@test/gpio/run.sh

.PHONY: fuzz
fuzz: ## each fuzzer for FUZZTIME (10s)
	@test/fuzz.sh $(FUZZTIME)

.PHONY: cross
cross: ## vet code and tests of every package for each box
	$(foreach box,$(BOXES),$($(box)) CGO_ENABLED=0 $(GO) vet ./... &&) true

.PHONY: bench
bench: $(DIST)/edged ## beside JetStream, nats-server, Mosquitto, wapc-go and Extism, in one run of about four minutes (BENCH="-only actors" for a table)
	$(GO) -C test/bench run . -edged $(CURDIR)/$(DIST)/edged $(BENCH)

##@ Shipping

.PHONY: deb
deb: build ## dist/*.deb for amd64, arm64 and armhf
	@packaging/deb.sh $(VERSION)

.PHONY: box
box: deb actors ## boot the package under systemd in a virtual box and break it there (root, qemu, some minutes)
	@packaging/box.sh

.PHONY: clean
clean: ## remove dist/
	rm -rf $(DIST)

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.DEFAULT_GOAL := help
