# Every command of the project. `.ci/run` is the truth: what CI runs is there, and the recipes call it.

# Lists the recipes
default:
    @just --list

# Formats the code
fmt:
    cargo fmt --all

# Checks format and lints
lint:
    .ci/run fmt lint

# Runs all tests
test:
    .ci/run test

# Runs the store tests alone, on SQLite and PostgreSQL; nothing may be missing
test-stores:
    CI=true cargo test -p mcp-oauth-proxy --test store

# Attacks the release build, on SQLite and PostgreSQL, and writes docs/attacks.md
attacks:
    cargo build --release
    CI=true UPDATE_DOCS=1 PROXY_BIN="$PWD/target/release/mcp-oauth-proxy" cargo test -p mcp-oauth-proxy --test attacks

# Lets 5,000 slow clients at the release build, for a minute each way
slow:
    cargo build --release
    SLOW_CONNECTIONS=5000 PROXY_BIN="$PWD/target/release/mcp-oauth-proxy" cargo test -p mcp-oauth-proxy --test slow

# Breaks what is around the release build, at length, and shows what is lost: nothing may be
faults *tests:
    cargo build --release
    CI=true PROXY_BIN="$PWD/target/release/mcp-oauth-proxy" KILLS="${KILLS:-200}" ROTATIONS="${ROTATIONS:-20000}" \
        SESSIONS="${SESSIONS:-200}" DAMAGES="${DAMAGES:-1000}" STREAMS="${STREAMS:-1000}" STOPS="${STOPS:-20}" \
        cargo test -p mcp-oauth-proxy --test faults -- {{ tests }}

# Races a hundred requests against each other, a thousand times each, against the release build
races *tests:
    cargo build --release
    CI=true PROXY_BIN="$PWD/target/release/mcp-oauth-proxy" ROUNDS="${ROUNDS:-1000}" STARTS="${STARTS:-100}" \
        cargo test -p mcp-oauth-proxy --test races -- {{ tests }}

# Checks that the protocol crate builds for WebAssembly
wasm:
    .ci/run wasm

# Builds the documentation of the code, without a warning
docs:
    .ci/run docs

# Checks licences, sources, duplicates and advisories of all dependencies, and writes the SBOM
supply:
    .ci/run supply

# Writes what is in the binary to target/sbom, as CycloneDX
sbom:
    .ci/run sbom

# Tries random input on everything that reads what strangers send; SECONDS_EACH is 60 by default
fuzz-smoke *targets:
    fuzz/smoke {{ targets }}

# Proves the release build with real clients, servers, the conformance suite and a browser
interop *parts:
    cargo build --release
    interop/run {{ parts }}

# Plays hosted clients at the release build, with pauses as long as in real life: a quarter of an hour
replays:
    cargo build --release
    REPLAY_SILENCE=130 REPLAY_PAUSE=80 interop/run replays

# Measures the proxy beside nginx and beside no proxy at all
bench *arguments:
    cargo build --release
    cargo run --release --example bench -- {{ arguments }}

# Runs the proxy with what is built in, or with a configuration file
run-dev *arguments:
    cargo run -- {{ arguments }}

# All that CI runs
ci:
    .ci/run
