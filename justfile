# What developers do here. `just` lists it; everything works without just, too: the recipes are
# plain cargo.

# List the recipes.
default:
    @just --list

# Start the whole system: broker, services, demo data.
dev *flags:
    cargo dev {{ flags }}

# Run all tests; a name runs those that have it in theirs.
test *flags:
    cargo test --workspace {{ flags }}

# Run the tests of one crate.
test-crate crate *flags:
    cargo test --package {{ crate }} {{ flags }}

# Kill, pause and rob services and broker under random commands; all must end as a plain fold says.
torture minutes="1" seed="":
    cargo run --package e2e -- torture --minutes {{ minutes }} {{ if seed == "" { "" } else { "--seed " + seed } }}

# Kill services with many events waiting; the longest time until they are ready and have caught up.
recovery *flags:
    cargo run --release --package e2e -- recovery {{ flags }}

# Write the files of deploy/ that list the services, from the manifests in crates/shop.
deploy-files:
    UPDATE=1 cargo test --package shop

# What CI checks before it runs the tests.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Format the code.
fmt:
    cargo fmt --all

# Import JSON Lines into a running system.
import *flags:
    cargo run --quiet --package shop-import -- {{ flags }}

# Build for systemd and install below a prefix (DESTDIR is honoured); deploy/systemd/README.md.
install prefix="/usr/local":
    cargo build --locked --release --bins
    NATS_SERVER="$(target/release/find-nats-server)" deploy/systemd/install.sh install {{ prefix }} target/release

# Take it away again; configuration and data stay.
uninstall prefix="/usr/local":
    deploy/systemd/install.sh uninstall {{ prefix }}

# Make Debian packages, in target/debian.
packages:
    cargo build --locked --release --bins
    NATS_SERVER="$(target/release/find-nats-server)" deploy/deb/build target/release target/debian

# Licences, sources and duplicates of the dependencies (needs cargo-deny).
deny:
    cargo deny --all-features check bans licenses sources

# Compare the public API of the published crates with docs/api, and update that.
public-api:
    cargo run --quiet --package e2e -- public-api

# Take the screenshots of the README, in docs/images (needs chromium and axe-core: CONTRIBUTING.md).
screenshots:
    cargo build --quiet --workspace --bins
    cargo run --quiet --package e2e -- screenshots

# Build the images for deploy/compose.yaml, from scratch (needs docker).
images:
    bash deploy/docker/build

# Alert rules: valid, and each fires when it should (needs promtool, of the package prometheus).
alerts:
    promtool check config deploy/prometheus/prometheus.yml
    promtool test rules deploy/prometheus/alerts.test.yml

# Build the documents as a site, in target/site (needs mkdocs-material, from pip).
site *flags:
    mkdocs build {{ flags }}

# Measure the figures in the documents; `just bench full` with all data, `just bench list` names them.
bench *flags:
    cargo build --quiet --release --bins
    cargo run --quiet --release --bin bench -- {{ flags }}

# What CI runs.
ci:
    bash .ci/run
