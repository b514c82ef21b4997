//! What is tried against the running program, case by case, and what must work all the same.
//!
//! To add a case:
//! 1. Find its group's file (`consent.rs` has the `N-CN` cases) and write an async function of the
//!    world: register a client of your own, attack, and then show the twin that succeeds.
//! 2. `world.refused(request, &Refusal::…)` sends a request and checks the four things that make a
//!    refusal: status, error code, no record changed, nothing sent to the upstream or elsewhere.
//!    `world.unchanged(…)` wraps any other attempt; `world.changing(&["grant/"], …)` says which
//!    records may change; `support::wire` sends bytes that no HTTP library would.
//!    `world.lets_in(…)` is the usual twin: sign-in, tokens, and a call that arrives. A case that
//!    takes something which this machine does not have ends with `Err(Missing(…))`.
//! 3. Add a row to `cases()`: permanent id, what is tried in one line, the function. What
//!    cannot be tried stands in `not_applicable.rs` with the reason.
//! 4. `ATTACKS=N-CN-07 cargo test -p mcp-oauth-proxy --test attacks` runs what begins like that;
//!    `just attacks` runs all on the release binary and writes `docs/attacks.md`.
//!
//! All of it happens in a network of its own (`sealed.rs`). `Internet::here()` has the names and the
//! public hosts of that; it is missing on machines where such a network cannot be made.
//!
//! A world is one running proxy with its upstream. Each lane of a store has one that its cases use
//! one after another, so nothing else happens during a case. What needs another configuration, or
//! would be in the way of those that follow, takes a world of its own: `world.another(lines)`.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "all of this is tests, and a failure should say where"
)]

mod access_tokens;
mod authorization;
mod case;
mod client_assertions;
mod client_documents;
mod compatibility;
mod configuration;
mod consent;
mod decoy;
mod framing;
mod guessing;
mod ids;
mod internet;
mod limits;
mod logs;
mod metadata;
mod not_applicable;
mod page;
mod puppet;
mod refresh;
mod refusal;
mod registration;
mod resource_server;
mod revocation;
mod run;
mod sealed;
mod signer;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;
mod token;
mod upstream;
mod world;

use std::collections::BTreeMap;

use case::Case;
use run::{Outcome, run};
use world::Store;

/// Every case, in the order of the page.
fn cases() -> Vec<Case> {
    let groups = [
        authorization::cases(),
        consent::cases(),
        token::cases(),
        refresh::cases(),
        registration::cases(),
        client_documents::cases(),
        metadata::cases(),
        revocation::cases(),
        access_tokens::cases(),
        resource_server::cases(),
        framing::cases(),
        upstream::cases(),
        limits::cases(),
        logs::cases(),
        configuration::cases(),
        compatibility::cases(),
    ];
    let mut all = Vec::new();
    for mut group in groups {
        group.sort_by_key(|case| case.id);
        all.append(&mut group);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_holds_on_every_store() {
    if sealed::ran("every_case_holds_on_every_store").await {
        return;
    }
    let wanted = std::env::var("ATTACKS").unwrap_or_default();
    let chosen = |case: &Case| case.id.starts_with(&wanted);
    let postgres = Store::postgres().await;
    let (on_sqlite, on_postgres) = tokio::join!(
        run(Store::Sqlite, cases().into_iter().filter(chosen).collect()),
        async {
            match postgres {
                Some(store) => Some(run(store, cases().into_iter().filter(chosen).collect()).await),
                None => None,
            }
        },
    );
    let whole = wanted.is_empty();
    let page = whole.then(|| page::page(&cases(), &on_sqlite, on_postgres.as_ref()));
    let results = on_sqlite.iter().chain(on_postgres.iter().flatten());
    let broken: Vec<&str> = results
        .filter(|(_, outcome)| **outcome == Outcome::Broken)
        .map(|(id, _)| *id)
        .collect();
    let page_is_right = page.is_none_or(|page| page::is_committed(&page));
    assert!(broken.is_empty(), "did not hold: {broken:?}");
    assert!(
        page_is_right,
        "docs/attacks.md says something else than this run: UPDATE_DOCS=1 cargo test --test attacks"
    );
}

#[test]
fn every_id_is_a_case_or_accounted_for_once() {
    let mut seen: BTreeMap<String, usize> = ids::all().into_iter().map(|id| (id, 0)).collect();
    let cases = cases();
    let excused = not_applicable::NOT_APPLICABLE.iter();
    let named = cases
        .iter()
        .map(|case| case.id)
        .chain(excused.flat_map(|(ids, _)| ids.split_whitespace()));
    for id in named {
        let count = seen.get_mut(id);
        *count.unwrap_or_else(|| panic!("{id} is no id of a case")) += 1;
    }
    seen.retain(|_, count| *count != 1);
    assert!(seen.is_empty(), "not named exactly once: {seen:?}");
}
