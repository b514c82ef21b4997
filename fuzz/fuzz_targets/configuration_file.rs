//! Z17: a configuration file never breaks the program, and each mistake in it has a name and a
//! place.
#![no_main]

use fuzz::{TestServer, judge};
use libfuzzer_sys::fuzz_target;
use protocol::identity::password::SignIn;
use server::config::{Environment, Place, from_text};

fuzz_target!(|text: &str| {
    // A secret may come from a file; the machine's devices are no part of this.
    if text.contains("/dev") || text.contains("/proc") || text.contains("/sys") {
        return;
    }
    judge(|| match from_text(text, None, &Environment::default()) {
        Ok(plan) => {
            assert!(!plan.upstreams.is_empty());
            let _ = format!("{plan:?}");
            let (policy, _) = plan.into_policy(SignIn::passphrase("x"));
            let _ = TestServer::with(policy);
        }
        Err(mistakes) => {
            assert!(!mistakes.list().is_empty());
            let shown = mistakes.to_string();
            for mistake in mistakes.list() {
                let key = mistake.key.to_string();
                assert!(shown.contains(&key) && shown.contains(&mistake.reason));
                assert!(!mistake.reason.is_empty() && !mistake.remedy.is_empty());
                match mistake.place {
                    Place::At { line, column } => {
                        let line = text.split('\n').nth(line - 1).expect("a line of the file");
                        assert!(column <= line.chars().count() + 1, "{shown}");
                    }
                    // Where tables stand too deep in one another, the reader does not say.
                    Place::File if mistake.reason.ends_with("recursion limit") => {}
                    Place::File | Place::Environment => assert!(!key.is_empty(), "{shown}"),
                }
            }
        }
    });
});
