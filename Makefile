# tally: everything that is done with the checkout, by name. `make` alone lists it.

CARGO   ?= cargo
DATA    ?= ./data
NEXTEST := 0.9.143

.DEFAULT_GOAL := help
.PHONY: help run build libchdb test test-tools test-crash test-crash-long test-history-long test-postbacks bench bench-postbacks race load lint fmt doc ci clean test-funnel-long test-openapi-long test-dashboards pictures fuzz fuzz-long

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

run: libchdb build ## get what is missing, build, and serve with the data in ./data
	./target/release/tally serve --data-dir $(DATA)

build: ## the release binary, target/release/tally
	$(CARGO) build --release --locked

libchdb: ## the embedded ClickHouse's library, .libchdb/libchdb.so (pinned and checked), linked beside the programs
	@scripts/get-libchdb.sh
	@mkdir -p target/release target/debug
	@ln -sfn ../../.libchdb/libchdb.so target/release/libchdb.so
	@ln -sfn ../../.libchdb/libchdb.so target/debug/libchdb.so

test: libchdb test-tools ## every test, those with real engines, clients and signals among them
	$(CARGO) nextest run --workspace --locked
	$(CARGO) test --workspace --locked --doc

test-tools: ## what the tests need: nextest, ClickHouse's clients, schemathesis, and (with apt, as root) PHP, Ruby and Chromium
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install cargo-nextest --locked --version $(NEXTEST)
	@scripts/test-tools.sh

test-dashboards: libchdb test-tools ## dashboards, alerts and the stack alone (part of `test`)
	$(CARGO) nextest run --locked --test dashboards --test dashboard_queries --test prometheus --test alerts --test demo --test stack

test-crash: libchdb ## 50 kills of the daemon under load, then the audit (part of `test`)
	TALLY_CRASH_ROUNDS=50 $(CARGO) nextest run --release --locked --test crash

test-crash-long: libchdb ## the same, 1,000 times
	TALLY_CRASH_ROUNDS=1000 $(CARGO) nextest run --profile long --no-capture --release --locked --test crash

test-history-long: libchdb ## 50 random histories with kills, each against the model of attribution (2 of them are part of `test`)
	TALLY_HISTORY_ROUNDS=50 $(CARGO) nextest run --profile long --no-capture --release --locked --test attribution_history

test-postbacks: libchdb ## 50 kills of the daemon while it delivers postbacks (5 of them are part of `test`)
	TALLY_POSTBACK_KILLS=50 $(CARGO) nextest run --profile long --no-capture --release --locked --test postbacks killed

test-funnel-long: libchdb ## 1,000 random histories of funnels, each against their model (8 of them are part of `test`)
	TALLY_FUNNEL_CASES=1000 $(CARGO) nextest run --profile long --no-capture --locked --test funnel

test-openapi-long: libchdb ## the API against its description with 300 requests an operation (12 are part of `test`)
	TALLY_OPENAPI_EXAMPLES=300 $(CARGO) nextest run --profile long --no-capture --locked --test openapi

FUZZ_SECONDS      ?= 20
FUZZ_LONG_SECONDS ?= 600
# The compiler's coverage flags are unstable; the code is not.
FUZZ = cd fuzz && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz

fuzz: ## every decoder against mutated inputs, 20 seconds each (docs/fuzzing.md); needs `cargo install cargo-fuzz`
	$(FUZZ) build -s none
	@for target in $$(cd fuzz && $(CARGO) fuzz list); do \
	  echo "== $$target"; \
	  (mkdir -p fuzz/target/found/$$target && cd fuzz && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run -s none $$target \
	    target/found/$$target corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=10) || exit 1; \
	done

fuzz-long: ## the same, ten minutes each
	$(MAKE) fuzz FUZZ_SECONDS=$(FUZZ_LONG_SECONDS)

pictures: libchdb grafana/pictures/node_modules ## draw the dashboards into docs/pictures, of live data and with Grafana's own components
	@scripts/test-tools.sh
	$(CARGO) build --release --locked --workspace
	node grafana/pictures/pictures.mjs

grafana/pictures/node_modules: grafana/pictures/package.json
	cd grafana/pictures && npm install --silent
	@touch $@

bench: race ## microbenchmarks, and the race against a bare HTTP server
	$(CARGO) bench --locked --bench '*'

bench-postbacks: ## postbacks: 100,000 drained, and how much 200 sick endpoints delay 800 healthy ones
	$(CARGO) nextest run --release --locked --lib --run-ignored only --no-capture postback::tests::measure postback::tests::neighbours

race: libchdb ## the daemon, every hit synced, against a bare hyper server
	$(CARGO) build --release --locked --workspace
	./target/release/loadtest race

lint: ## formatting, clippy, documentation: what CI refuses
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked

fmt: ## format the code
	$(CARGO) fmt --all

doc: ## the crate's documentation, opened
	$(CARGO) doc --no-deps --open

ci: lint test ## what .ci/run does

clean: ## remove what was built; data, library and test tools stay
	$(CARGO) clean
