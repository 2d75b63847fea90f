# Logic lives in Rust, Go and tools/*.sh; this file only names it.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/.bin:$(PATH)

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

.PHONY: setup
setup: ## Install what building and testing needs: packages, Rust, NATS, a local Kubernetes
	@tools/setup.sh

.PHONY: demo
demo: ## Run the main job on a real cluster: RULES=rules.tar.gz EVENTS=60000 CLUSTER=local|current
	@tools/demo.sh

.PHONY: test
test: setup ## Run all tests; ends with "N passed, N failed, N skipped"
	@tools/test.sh unit model integration e2e generated

.PHONY: model
model: ## Run the model tests alone: MODEL_CASES=256 MODEL_SEED=
	@tools/setup.sh rust nats
	@cargo test --test model

.PHONY: lint
lint: ## Check format, lints, documentation and dependencies
	@tools/setup.sh rust deny
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	@cargo deny check bans licenses sources

.PHONY: generate
generate: ## Write crds/ and the generated parts of docs/
	@tools/setup.sh rust
	@tools/generate.sh

.PHONY: check
check: lint ## Run lint, and fail when generated files differ
	@tools/test.sh generated

.PHONY: mutants
mutants: ## Plant bugs in a copy of the protocol: each must be found by the model tests
	@tools/setup.sh rust
	@tests/mutants/run.sh

.PHONY: bench
bench: ## Measure worker and store: BENCH=worker|store RULES=rules.tar.gz EVENTS=events.ndjson
	@tools/setup.sh rust nats
	@tools/bench.sh

.PHONY: plugin
plugin: ## Build kubectl lookback and install it: DESTDIR=~/.local/bin
	@tools/setup.sh rust
	@tools/plugin.sh install

.PHONY: plugin-archive
plugin-archive: ## Build the plugin's archive and its manifest for krew into target/plugin/
	@tools/setup.sh rust
	@tools/plugin.sh archive

.PHONY: image
image: ## Build the image for the local cluster, without Docker: IMAGE=lookback.dev/lookback:dev
	@tools/setup.sh rust localcluster
	@tools/image.sh

.PHONY: clean
clean: ## Stop local clusters, and remove target/, .bin/ and .run/ (not the caches outside)
	@tools/clean.sh
