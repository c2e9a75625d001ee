# Every target in one line: `make help`. The contract of each is in CONTRIBUTING.md.

VERSION ?= $(shell cat VERSION)
TAGS    := netgo osusergo seccomp runc_nocriu nethttpomithttp2
GO      ?= go
HOST    := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -mod=readonly -ldflags "-s -w -buildid= -X main.version=$(VERSION)"
TEST    := $(GO) test -tags "$(TAGS)" -buildvcs=false
PKGS    := ./...

.DEFAULT_GOAL := build
.PHONY: help setup build cross demo demo-hal test race check fmt lint vet imports size fuzz bench images soak sdk repro lab lab-fetch lab-shell lab-smoke lab-agent lab-memory lab-powercut lab-reset lab-selftest clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: ## install what the other targets need (as root; safe to repeat)
	@scripts/setup

build: ## build for this host into build/
	@mkdir -p build
	VERSION="$(VERSION)" GO="$(GO)" scripts/device host build/sandpiper
	$(HOST) -o build/sandpiper-bundle ./cmd/sandpiper-bundle
	$(HOST) -o build/sandpiper-hub ./cmd/sandpiper-hub

cross: ## static, reproducible device binaries for amd64, arm64, armv7 and armv6 into build/linux-*/
	@VERSION="$(VERSION)" scripts/cross

repro: ## build all device binaries twice in two folders and compare their hashes
	@VERSION="$(VERSION)" scripts/repro

demo: build ## the main job on this machine: hub, agent, four modules, an outage, three kills, a ledger
	@$(GO) build -o build/demo ./scripts/demo && exec build/demo

demo-hal: build ## a simulated tank: sensors without code, a pump that is safe when its module is killed, seen at the hub
	@$(GO) build -o build/demo ./scripts/demo && exec build/demo hal

test: ## every test that needs no board; sandbox tests run for real as root
	@scripts/announce
	$(TEST) -timeout 10m $(PKGS)

race: ## the same under the race detector
	$(TEST) -race -shuffle=on -timeout 20m $(PKGS)

check: fmt vet lint imports build size test lab-smoke ## what CI runs and what a developer runs

fmt: ## fail when a file is not gofmt'ed
	@out=$$(gofmt -l agent cmd hal sandbox store scripts); test -z "$$out" || { echo "not gofmt'ed: $$out"; exit 1; }

vet: ## go vet, and the device's code compiled for a 32-bit processor
	$(GO) vet -tags "$(TAGS)" $(PKGS)
	@GO="$(GO)" scripts/build32

lint: build/golangci-lint ## golangci-lint, as .golangci.yml says
	build/golangci-lint run --timeout 10m $(PKGS)

build/golangci-lint: scripts/tools/go.mod
	@mkdir -p build
	cd scripts/tools && $(GO) build -o ../../build/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint

imports: ## the import rules of ARCHITECTURE.md
	$(GO) test -tags "$(TAGS)" -run 'TestImports|TestPackageDocs|TestOneForeignLibraryOneRoom|TestForeignLibraries' ./cmd/sandpiper

size: ## the device binary against its budget
	@scripts/size build/sandpiper

fuzz: ## every fuzz target for FUZZTIME (default 30s); FUZZ=sandbox/image names the folders
	@scripts/fuzz

images: build ## Debian images made by umoci and skopeo, in a registry of Debian: pulled, merged, run, compared (as root)
	@scripts/images

bench: ## side-by-side benchmarks; BENCH=name runs a part, BENCH_SCALE=0.02 a quick look; writes build/bench.json
	@scripts/bench/run

sdk: ## conformance on the real SDK packages
	@scripts/sdk

soak: build ## long runs: SOAK=kill (default) kills the agent SOAK_KILLS=500 times under load and compares ledgers; SOAK=powercut cuts the store's power at 10000 moments and at 2000 of a disk that lies; SOAK=agent kills it 200 times over ten modules; SOAK=hostile: each hostile module alone
	@case "$(or $(SOAK),kill)" in \
	kill) $(GO) build -o build/demo ./scripts/demo && exec build/demo kill ;; \
	powercut) SANDPIPER_STORE_POWERCUTS=$(or $(SOAK_CUTS),10000) $(TEST) -count=1 -v -timeout 60m -run PowerCut ./store ;; \
	agent) SANDPIPER_KILLS=$(or $(SOAK_KILLS),200) $(TEST) -count=1 -v -timeout 60m -run TestTenModulesOutlive ./cmd/sandpiper ;; \
	hostile) SANDPIPER_HOSTILE=$(or $(HOSTILE),each) $(TEST) -count=1 -v -timeout 60m -run TestHostileModules ./cmd/sandpiper ;; \
	*) echo "no soak $(SOAK); there are: kill, powercut, agent, hostile" >&2; exit 2 ;; esac

lab: ## board tests on virtual ARM boards (LAB_BOARDS, LAB_PKGS, LAB_RUN; LAB=smoke: one board)
	@scripts/lab/lab $(if $(filter smoke,$(LAB)),smoke,run)

lab-fetch: ## newest kernels and fixture modules for the boards, into the user's cache
	@scripts/lab/lab fetch

lab-shell: ## a shell on a virtual board: BOARD=arm64
	@scripts/lab/lab shell $(or $(BOARD),arm64)

lab-smoke: ## one virtual board, where QEMU and a fetched kernel are at hand
	@scripts/lab/lab smoke

lab-agent: build ## the main job on virtual boards (LAB_BOARDS): hub here, agent there, LAB_RESETS=20 resets, a ledger
	@scripts/lab/lab job

lab-memory: build ## memory of warden and agent on the armv7 board with the demo's modules, beside this machine's figure
	@scripts/lab/lab memory

lab-powercut: ## power cuts under a working store on virtual boards, and a control (LAB_CUTS=10, LAB_SEED, LAB_BOARDS)
	@scripts/lab/lab powercut

lab-reset: ## boards reset by their own watchdog, with two system slots and their data (LAB_BOARDS)
	@scripts/lab/lab reset

lab-selftest: ## what goes wrong on purpose on a board, and whether the lab tells it as what it is: BOARD=arm64
	@scripts/lab/lab selftest $(or $(BOARD),arm64)

lab-%: ## board tests on one board, such as lab-armv6
	@scripts/lab/lab run $*

clean: ## remove build/
	rm -rf build
