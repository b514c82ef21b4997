//! Random walks through registration, consent, redemption, refresh, revocation, calls, time,
//! crashes and store faults: each answer is the one that the rules give (RFC 6749, RFC 9700).

mod support;

use std::time::Duration;

use proptest::prelude::*;
use protocol::policy::Policy;
use support::walk::{Disagreement, usual, walk};

fn run(steps: &[[u8; 4]], policy: fn() -> Policy) -> Result<(), Disagreement> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime with a clock alone always starts");
    runtime.block_on(walk(steps.as_flattened(), policy))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// RC-05: rules 1 to 9 of the refresh policy, and what a code is good for
    #[test]
    fn every_answer_is_the_one_that_the_rules_give(
        steps in prop::collection::vec(any::<[u8; 4]>(), 0..80)
    ) {
        run(&steps, usual).map_err(|found| TestCaseError::fail(format!("{found:#?}")))?;
    }
}

/// The model would notice: a window that is one second too long is found.
#[test]
fn an_answer_that_the_rules_do_not_give_is_noticed() {
    // Refresh; call with the new token; wait 121 seconds; refresh with the old token.
    let steps = [[9, 0, 1, 0], [18, 0, 1, 0], [22, 8, 0, 0], [9, 1, 1, 0]];
    assert!(run(&steps, usual).is_ok());
    let found = run(&steps, || {
        let mut lax = usual();
        lax.tokens.refresh_retry_window = Duration::from_secs(121);
        lax
    });
    assert!(found.is_err());
}
