# What gates a change. `make check` is the one command; the other targets are its parts and the slower suites.

TARGET := x86_64-unknown-linux-gnu
# What cargo-fuzz gives the compiler, without it.
COVERED := -Zsanitizer=address --cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
# Sanitizers cost more in optimised code than they gain: it takes several times as long to compile.
UNOPTIMISED := $(foreach crate,rccl rccl-kernels rccl-schedule rccl-topology rccl-transport,--config profile.dev.package.$(crate).opt-level=0)
SANITIZED := RUSTC_BOOTSTRAP=1 cargo test $(UNOPTIMISED) --target $(TARGET)

.PHONY: check fmt lint test docs deny loom asan tsan fuzz hosts sweep

check: fmt lint test docs deny

fmt:
	cargo fmt --all -- --check
	cargo fmt --manifest-path ffi/python/Cargo.toml -- --check

lint:
	cargo clippy --workspace --all-targets -- -D warnings

test:
	cargo test --workspace

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, sources, duplicate and unwanted crates. Skipped with a word where cargo-deny is
# not installed (cargo install --locked cargo-deny).
deny:
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	elif [ "$(CI)" = true ]; then echo "cargo-deny is missing" >&2; exit 1; \
	else echo "skipped: cargo-deny is not installed"; fi

# Every interleaving of the shared-memory ring and of sleeping and waking.
loom:
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p rccl-transport --release --test loom

# What the validator proves of every algorithm, with every count and chunking at every size: ten minutes on two cores.
sweep:
	RCCL_SWEEP=full cargo test --release -p rccl-schedule --test proofs

# Hosts as network namespaces; needs root.
hosts:
	cargo build --release
	tests/hosts.sh target/release/rccl

asan:
	RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan $(SANITIZED) -p rccl-transport --features conformance
	RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan $(SANITIZED) -p rccl \
	  --test messages --test repeated --test work

tsan:
	mkdir -p target/tsan
	wraps=$$(tests/tsan/unseen.sh $(CURDIR)/target/tsan/unseen.o | sed 's/^/-Clink-arg=/') && \
	  TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan/suppressions" CARGO_TARGET_DIR=target/tsan \
	  RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer -Clink-arg=$(CURDIR)/target/tsan/unseen.o $$(echo $$wraps)" \
	  $(SANITIZED) -p rccl-transport --features conformance --lib -- --test-threads=1

# Random bytes for the readers of NCCL's files, grown from real ones; wants a C++ compiler. What breaks one is left in
# target/fuzz.
FUZZ_SECONDS := 60
fuzz:
	mkdir -p target/fuzz/corpus
	cd topology/fuzz && RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(COVERED)" CARGO_TARGET_DIR=../../target/fuzz cargo run --release \
	  --target $(TARGET) --bin xml -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	  -artifact_prefix=../../target/fuzz/ ../../target/fuzz/corpus ../tests/nccl
