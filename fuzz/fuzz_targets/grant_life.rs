//! Z21: walks through registration, consent, redemption, refresh, revocation, calls, time, crashes
//! and store faults get the answers that the model gives. The walk itself is in the protocol's
//! tests, which try a few hundred of them at random.
#![no_main]

use fuzz::{block_on, judge, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: &[u8]| judge(|| {
    if let Err(disagreement) = block_on(walk::walk(steps, walk::usual)) {
        panic!("{disagreement:#?}");
    }
}));
