# What gates a change. `make check` is the one command; the other targets are its parts and the slower suites.

TARGET := x86_64-unknown-linux-gnu
SANITIZED := RUSTC_BOOTSTRAP=1 cargo test --target $(TARGET)

.PHONY: check fmt lint test docs deny loom asan tsan hosts

check: fmt lint test docs deny

fmt:
	cargo fmt --all -- --check

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

# Hosts as network namespaces; needs root.
hosts:
	cargo build --release
	tests/hosts.sh target/release/rccl

asan:
	RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan $(SANITIZED) -p rccl-transport --features conformance
	RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan $(SANITIZED) -p rccl \
	  --test messages --test repeated --test work

tsan:
	TSAN_OPTIONS="suppressions=$(CURDIR)/transport/tests/tsan.supp" \
	  RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" CARGO_TARGET_DIR=target/tsan \
	  $(SANITIZED) -p rccl-transport --features conformance --lib -- --test-threads=1
