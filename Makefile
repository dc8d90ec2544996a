# Every command of the project. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-kafka test-helm test-kube test-image soak cost instructions lint kafka bench build fmt clean setup

CACHE := $(or $(OUTRIGGER_TEST_CACHE),$(CURDIR)/.cache)
export PATH := $(CACHE)/tools/bin:$(PATH)

# Tests of the whole program mostly wait: for sessions, leases, brokers that come back.
export RUST_TEST_THREADS ?= $(shell expr 2 \* $$(nproc))

# A clean clone builds once: what helps the second build would only fill its disk.
ifdef CI
export CARGO_INCREMENTAL := 0
endif

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: ## Build, start the sidecar on its embedded broker, publish and read back before your eyes
	@tests/setup demo
	cargo build --release --locked
	@tests/demo

# The cheap checks come first. The doc tests do not come last, so that the run closes on the summaries of the whole program's tests.
test: setup ## Every check, on a machine that has nothing yet
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory test-helm
	$(MAKE) --no-print-directory test-kube
	$(MAKE) --no-print-directory test-image
	cargo test --locked --doc
	cargo test --locked --tests --no-fail-fast

test-unit: ## Only the tests inside src/: no broker, seconds
	cargo test --locked --lib --bins

test-kafka: setup ## Only the tests of the whole program against real Kafka
	cargo test --locked --test '*'

test-helm: setup ## Only the charts: renders, refusals, schemas, linters; UPDATE_CHARTS=1 writes anew what is made from them
	"$$(tests/helm/venv)" -B -m unittest tests/helm/test_charts.py

test-kube: setup ## Only injection and gateway on a real Kubernetes API server, which the first run builds
	cargo build --locked
	"$$(tests/helm/venv)" -B -m unittest tests/kube/test_injection.py

soak: setup ## The long counts: 50 rolling restarts with each heartbeat, 100 rebalances in each order, ten million records published; prints what it measured
	OUTRIGGER_SOAK=1 cargo test --locked --test suite rolling:: -- --nocapture
	OUTRIGGER_SOAK=1 cargo test --locked --test suite checker:: -- --nocapture
	OUTRIGGER_SOAK=1 cargo test --locked --test suite rebalances::rebalance -- --nocapture --test-threads 1
	OUTRIGGER_SOAK=1 cargo test --locked --test suite truth::every -- --nocapture

test-image: setup ## Only the container image: built with buildah, run read-only beside real Kafka; as root
	python3 -B -m unittest --verbose tests/image/test_image.py

cost: setup ## CPU per record beside an older commit, with one trace in a hundred: make cost BASE=COMMIT; wants a quiet machine
	tests/cost $(BASE)

instructions: ## Instructions of the steps of publishing beside the committed baseline (callgrind); UPDATE=1 writes it anew
	tests/instructions $(if $(UPDATE),--update)

lint: ## Formatting, protocol files, dependencies, clippy and documentation; warnings are errors
	cargo fmt --check
	buf lint
	cargo deny --locked check -D warnings bans licenses sources
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items

kafka: setup ## A real Kafka broker on loopback, until Ctrl-C
	tests/kafka/cluster.py start --foreground

bench: setup build ## Throughput and CPU beside a direct client, on a real Kafka of its own
	tests/bench

build: ## The release binary, target/release/outrigger
	cargo build --release --locked

fmt: ## Format the code
	cargo fmt

clean: ## Remove what was built; the cache of tools in .cache stays
	cargo clean

setup:
	@tests/setup
