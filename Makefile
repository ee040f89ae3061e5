# make demo   the whole story on real packets, about a minute after the build
# make test   everything that proves it: unit, vectors, end to end, lints
# make test-vm   the same end to end on the kernel's own WireGuard, in a virtual machine; needs qemu
# make bench  what it costs and how long it takes, beside fwknop, wireguard-go and boringtun; QUICK=1 in under five minutes, README=1 puts the table into the README
# make sim    ten thousand runs of gateways, clients and a bad network on a virtual clock; RUNS=n SEED=n
# make oracle the policy engine beside Cedar's, on random policies; a workspace of its own, since Cedar is large
# make fuzz   every fuzz target for FOR=60s each, or TARGET=name alone
# make breaks promises broken on purpose, each to be noticed by one of these
# make timing whether the time of a comparison tells of a secret: statistics, on a quiet machine
# make mutants  every check, bound and key derivation changed, one by one, each to be noticed by a unit test; FILES="a.rs b.rs"
# make coverage which lines of wire and core the tests run through
# make router static programs for a router, and their tests on its processor; TARGET=x86_64, aarch64, armv7, mipsel or mips alone
# make model  the formal models, where ProVerif and Verifpal are installed
# make deb    Debian packages of gateway, client and tunnel, in target/deb
# make test-packages   these packages on a fresh Debian with the kernel's WireGuard, in a virtual machine: installed, used, upgraded, purged;
#             before that real ufw and firewalld, OpenWrt's files, and the static programs of `make router`: the main job, their memory, a container's image
# make release-tarball   the archive that OpenWrt's packages are built from, and its hash; URL=https://… fills both into them
# make sbom   a bill of materials of each program, CycloneDX
# make instructions   accepts the instruction counts of now as those to compare with
# demo, test, test-vm, bench, instructions, deb and test-packages prepare a fresh Debian machine with Rust by themselves when run as root, and otherwise
# say what to install; before the others `make setup` does. fuzz wants a C++ compiler too, breaks patch(1), sbom and model Python 3.

SHELL := /bin/bash
CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
SYSTEMD_UNITS ?= /etc/systemd/system

TARGET = $(or $(CARGO_TARGET_DIR),target)
PROGRAMS = spa spa-gateway spa-admin spa-enforcer spa-tunnel
PACKAGES_NEED = debootstrap:debootstrap curl:curl busybox:busybox-static qemu-system-x86_64:qemu-system-x86 /usr/lib/qemu/virtiofsd:qemu-system-common \
	buildah:buildah podman:podman crun:crun docker-compose:docker-compose node:nodejs

.PHONY: help demo test test-vm bench instructions sim oracle fuzz model sbom breaks timing mutants coverage router setup build unit vectors e2e tree fmt clippy release install uninstall deb release-tarball test-packages clean

help:
	@sed -n '/^$$/q; s/^# //p' Makefile; echo "also: help setup build unit vectors e2e tree fmt clippy release install uninstall clean"

demo: build
	@$(TARGET)/debug/demo

# One profile for everything, so that nothing is built twice.
test: setup
	@tests/tools/test.sh

test-vm: setup
	@FILTER="$(FILTER)" tests/vm/test.sh

bench: setup
	@QUICK="$(QUICK)" SECTIONS="$(SECTIONS)" README="$(README)" tests/tools/bench.sh

sim:
	@$(CARGO) run --locked -q --profile sim -p spa-sim -- $(or $(RUNS),10000) $(or $(SEED),0)

oracle:
	@$(CARGO) test --locked -q --manifest-path spa-gateway/core/tests/policy_cedar/Cargo.toml

fuzz:
	@FOR="$(or $(FOR),60s)" TARGET="$(if $(filter command line,$(origin TARGET)),$(TARGET))" tests/tools/fuzz.sh

router:
	@packaging/router/build.sh $(if $(filter command line,$(origin TARGET)),$(TARGET))

model:
	@tests/tools/model.sh

sbom:
	@tests/tools/sbom.sh

breaks:
	@tests/tools/breaks.sh

timing:
	@$(CARGO) run --locked -q --profile sim -p spa-tests --bin timing -- $(SAMPLES)

mutants:
	@FILES="$(FILES)" tests/tools/mutants.sh

coverage:
	@tests/tools/coverage.sh

instructions: build
	@ACCEPT=1 tests/tools/instructions.sh

setup:
	@tests/tools/setup.sh

# Without default features: what the vector checker looks into is in no program that is shown or tested.
build: setup
	@$(CARGO) build --locked --workspace --no-default-features

unit:
	$(CARGO) test --locked --workspace --exclude spa-tests

vectors:
	for folder in tests/vectors tests/vectors/negative; do $(CARGO) run --locked -q -p spa-tests --bin check-vectors -- $$folder || exit 1; done

e2e: build
	@tests/tools/e2e.sh

tree:
	$(CARGO) test --locked -p spa-tests --test tree

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# One by one, so that none is built with what another asks of a crate they share.
release: setup
	for package in spa-gateway spa-enforcer spa-tunnel spa-client; do $(CARGO) build --locked --release -p $$package || exit 1; done

deb: release
	@tests/tools/setup.sh dpkg-shlibdeps:dpkg-dev
	@packaging/debian/build.sh "$(TARGET)/release" "$(TARGET)/deb"

release-tarball:
	@URL="$(URL)" packaging/release-tarball.sh

# What cannot be installed is missed, loudly, by the test that needs it.
test-packages: build deb
	-@tests/tools/setup.sh $(PACKAGES_NEED)
	@tests/packages/source.sh
	@tests/packages/firewalls.sh
	@tests/packages/openwrt.sh
	@REVISION=2 packaging/debian/build.sh "$(TARGET)/release" "$(TARGET)/deb/next"
	@tests/packages/router.sh
	@tests/packages/debian.sh "$(TARGET)/deb"

# Builds as you, installs as root: `make release && sudo make install`.
install:
	@tests/tools/need-release.sh "$(TARGET)/release" $(PROGRAMS)
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/sbin" "$(DESTDIR)$(PREFIX)/share/man/man1" "$(DESTDIR)$(PREFIX)/share/man/man5" "$(DESTDIR)$(PREFIX)/share/man/man8"
	install -m 0755 "$(TARGET)/release/spa" "$(DESTDIR)$(PREFIX)/bin/spa"
	for program in spa-gateway spa-admin spa-enforcer spa-tunnel; do install -m 0755 "$(TARGET)/release/$$program" "$(DESTDIR)$(PREFIX)/sbin/$$program" || exit 1; done
	install -m 0644 docs/man/spa.1 "$(DESTDIR)$(PREFIX)/share/man/man1/"
	install -m 0644 docs/man/spa-policy.5 "$(DESTDIR)$(PREFIX)/share/man/man5/"
	install -D -m 0644 packaging/policy.example.toml "$(DESTDIR)$(PREFIX)/share/doc/spa/policy.example.toml"
	install -D -m 0644 packaging/nftables/spa.nft "$(DESTDIR)$(PREFIX)/share/spa/nftables/spa.nft"
	install -D -m 0644 packaging/nftables/nftables.conf.example "$(DESTDIR)$(PREFIX)/share/doc/spa/nftables.conf.example"
	install -m 0644 docs/man/spa-admin.8 docs/man/spa-gateway.8 "$(DESTDIR)$(PREFIX)/share/man/man8/"
	PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" SYSTEMD_UNITS="$(SYSTEMD_UNITS)" packaging/install.sh

# Leaves /etc/spa and /var/lib/spa: they are yours.
uninstall:
	PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" SYSTEMD_UNITS="$(SYSTEMD_UNITS)" packaging/install.sh --remove
	rm -f "$(DESTDIR)$(PREFIX)/bin/spa" $(foreach program,spa-gateway spa-admin spa-enforcer spa-tunnel,"$(DESTDIR)$(PREFIX)/sbin/$(program)")
	rm -rf "$(DESTDIR)$(PREFIX)/share/doc/spa" "$(DESTDIR)$(PREFIX)/share/spa"
	rm -f "$(DESTDIR)$(PREFIX)/share/man/man1/spa.1" "$(DESTDIR)$(PREFIX)/share/man/man5/spa-policy.5" "$(DESTDIR)$(PREFIX)/share/man/man8/spa-admin.8" "$(DESTDIR)$(PREFIX)/share/man/man8/spa-gateway.8"

clean:
	$(CARGO) clean
