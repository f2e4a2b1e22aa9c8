# Two commands do everything on a fresh Debian 12 with a Rust toolchain: `make demo` and `make test`.

CARGO ?= cargo
# What is missing is installed by `make`, so its absence is a failure here, not a reason to skip a test.
# Extend it (`make test URUNC_REQUIRE=root,qemu,solo5-spt`) on machines that must have more.
export URUNC_REQUIRE ?= root,tun,ip,tc,nft,nsenter,unshare,setpriv,qemu,linux-guest,containerd,runc,docker,podman,cni,netavark

# Release binaries are static where the toolchain can make them so (`rustup target add x86_64-unknown-linux-musl`): they
# start in half the time. benches/README.md has the figures.
STATIC ?= $(shell rustup target list --installed 2>/dev/null | grep -x x86_64-unknown-linux-musl)

# Where cargo puts things.
built = $(or $(CARGO_TARGET_DIR),target)
# Where `make test` unpacks a newer containerd than the installed one. Absolute, for tests run in the directory of their crate.
newer = $(abspath $(built)/containerd)
release = $(built)/$(if $(STATIC),$(STATIC)/)release
manual = $(built)/manual
prefix = $(DESTDIR)$(or $(PREFIX),/usr/local)
floor = $(or $(CARGO_TARGET_DIR),benches/floor/target)/release
guests = $(or $(CARGO_TARGET_DIR),examples/unikernel/target)/release
youki = $(built)/youki
# What is measured: copies, as users have them. A file as the linker leaves it starts more slowly (benches/README.md).
measured = $(built)/measured

.PHONY: demo
demo: ## Boot the demo unikernel and walk a second one through its life
	scripts/install-deps build qemu
	$(MAKE) --no-print-directory release guest
	URUNC=$(release)/urunc scripts/demo

.PHONY: test
test: ## Install what the tests need and run all of them
	scripts/install-deps build qemu test containerd docker podman cri linux-guest
	scripts/stock-kernel $(or $(CARGO_TARGET_DIR),target)/linux-guest
	-scripts/newer-containerd $(newer)
	$(MAKE) --no-print-directory guest
	examples/unikernel/check.sh
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace
	if [ -x $(newer)/containerd ]; then URUNC_CONTAINERD=$(newer) $(CARGO) test -p urunc-cli --test shim; fi
	$(MAKE) --no-print-directory bench-smoke

.PHONY: lint
lint: ## Formatting, lints and documentation, as CI checks them
	scripts/install-deps build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

.PHONY: release
release: ## Build the binaries of a release
	$(CARGO) build --release $(if $(STATIC),--target $(STATIC)) -p urunc-cli

.PHONY: guest
guest: ## Build the demo unikernel
	cd examples/unikernel && $(CARGO) build --release

.PHONY: bench
bench: ## Compare urunc with other runtimes; needs a quiet machine for a few minutes, writes benches/results
	scripts/install-deps build test containerd bench
	$(MAKE) --no-print-directory release guest floor
	$(CARGO) build --release -p urunc-benches
	-command -v youki || [ -x $(youki)/bin/youki ] || $(CARGO) install --quiet --locked youki@0.7.0 --features v2 --root $(youki) --target-dir $(youki)/target
	install -D -t $(measured) $(release)/urunc $(release)/containerd-shim-urunc-v2 $(floor)/floor $(floor)/launch $(floor)/stand-in
	PATH="$$PATH:$(abspath $(youki))/bin" $(built)/release/compare --urunc $(measured)/urunc --floor $(measured) --guests $(guests) --out benches/results $(BENCH)

.PHONY: bench-smoke
bench-smoke: floor
	$(CARGO) build -p urunc-cli -p urunc-benches
	$(built)/debug/compare --urunc $(built)/debug/urunc --floor $(floor) --guests $(guests) --smoke >/dev/null

.PHONY: floor
floor:
	cd benches/floor && $(CARGO) build --release

.PHONY: virtiofsd
virtiofsd: ## Install virtiofsd into target/virtiofsd/bin, for releases of Debian that have no package of it
	scripts/install-deps build virtiofsd
	$(CARGO) install --locked --version 1.13.2 --root $(or $(CARGO_TARGET_DIR),target)/virtiofsd virtiofsd

.PHONY: install
install: release man ## Install binaries, manual pages and shell completions below PREFIX (/usr/local)
	install -D -m 0755 -t $(prefix)/bin $(release)/urunc $(release)/containerd-shim-urunc-v2
	install -D -m 0644 -t $(prefix)/share/man/man1 $(manual)/man1/*.1
	install -D -m 0644 -t $(prefix)/share/bash-completion/completions $(manual)/bash-completion/completions/urunc
	install -D -m 0644 -t $(prefix)/share/zsh/site-functions $(manual)/zsh/site-functions/_urunc
	install -D -m 0644 -t $(prefix)/share/fish/vendor_completions.d $(manual)/fish/vendor_completions.d/urunc.fish

.PHONY: man
man: ## Write the manual pages and the shell completions from the command line's grammar
	$(CARGO) run --quiet -p urunc-cli --example manual -- $(manual)

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
