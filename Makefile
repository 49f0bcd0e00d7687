# Every target runs from a clean clone with Rust, Go and (for a node) Debian packages, which are named before they are
# installed. The Kubernetes parts are built once into ${XDG_CACHE_HOME:-~/.cache}/surefoot.

.PHONY: docs demo test bench bench-cluster bench-scale bench-revert soak fuzz lint fmt packages image

# Shows the whole loop on a real cluster, about 75 s after the builds. KEEP=1 leaves it up until Ctrl-C.
demo: packages
	cargo build --bin surefoot --example demo
	KEEP=$(KEEP) cargo run --quiet --example demo

# Cheapest first. A trial that needs what this machine lacks is listed as ignored, with the reason in its name.
test: packages
	cargo test --lib --bins
	cd demo/digits && go vet ./... && go test ./...
	cargo test --test it

# Linked as image/build links: what is measured is what ships, which has 2 MB less resident than with a shared C library.
BENCH = RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" \
	cargo bench --target "$$(rustc -vV | sed -n 's/^host: //p')"

bench:
	$(BENCH) --bench review --bench https

# What a review adds to an apply through a real API server, and what the same rules in CEL add.
bench-cluster:
	$(BENCH) --bench cluster

# The controller with 1,000 and 10,000 Deployments on nodes that KWOK simulates.
bench-scale:
	$(BENCH) --bench scale

# Whether memory stays flat: 30 minutes of rollouts on the same nodes.
soak:
	$(BENCH) --bench scale -- soak

# What users notice of a bad version, on a real node. Needs root.
bench-revert:
	$(BENCH) --bench revert

# Looks for input that breaks a promise, FUZZ_SECONDS (60) for each of five targets; ends with 1 where it found some.
fuzz:
	fuzz/run

# surefoot's image as an OCI archive, below target/image; about 15 minutes the first time, on two cores.
image:
	image/build

lint:
	cargo fmt --check
	test -z "$$(gofmt -l demo/digits)"
	cargo clippy --all-targets -- -D warnings

fmt:
	cargo fmt
	gofmt -w demo/digits

packages:
	@tests/support/packages.sh

# Writes what is generated: docs/{policies,messages,config}.md, the chart's template, policies/capabilities.json, policies/schemas/input.json.
docs:
	SUREFOOT_BLESS=1 cargo test --test it -- _is_fresh
	SUREFOOT_BLESS=1 cargo test --test it -- schema::
