//! Z10: what was sealed opens for its purpose, in its context, unchanged, and not otherwise.
#![no_main]

use arbitrary::Arbitrary;
use fuzz::judge;
use libfuzzer_sys::fuzz_target;
use protocol::{
    oauth::identifiers::Issuer,
    token::{Keys, PresentedRefreshToken, Purpose},
};

#[derive(Arbitrary, Debug)]
struct Input {
    plain: Vec<u8>,
    context: Vec<u8>,
    other_context: Vec<u8>,
    is_transaction: bool,
    changes: Vec<(u16, u8)>,
    foreign: String,
}

thread_local! {
    static KEYS: [Keys; 2] = ["https://gw.example", "https://other.example"]
        .map(|issuer| Keys::derive(&[7; 32], [], &Issuer::parse(issuer).expect("an issuer")));
}

fuzz_target!(|input: Input| KEYS.with(|[keys, others]| judge(|| {
    let Input { plain, context, .. } = &input;
    let (purpose, other_purpose) = if input.is_transaction {
        (Purpose::Transaction, Purpose::McpSession)
    } else {
        (Purpose::McpSession, Purpose::Transaction)
    };
    let sealed = keys.seal(purpose, plain, context);
    let open = |keys: &Keys, purpose, text: &str, context: &[u8]| {
        keys.open(purpose, text, context).map(|(plain, _)| plain)
    };
    assert_eq!(open(keys, purpose, &sealed, context).as_ref(), Some(plain));
    assert_eq!(open(keys, other_purpose, &sealed, context), None);
    assert_eq!(open(others, purpose, &sealed, context), None);
    if input.other_context != *context {
        assert_eq!(open(keys, purpose, &sealed, &input.other_context), None);
    }
    // It is no token, whatever stands before it.
    for prefix in ["", "mopa_", "mopc_", "mopr_"] {
        let text = format!("{prefix}{sealed}");
        assert_eq!(keys.recognise_access_token(&text), None);
        assert!(keys.recognise_authorization_code(&text).is_none());
        assert!(PresentedRefreshToken::parse(&text).is_none());
    }
    let mut changed = sealed.clone().into_bytes();
    for (at, byte) in &input.changes {
        let at = usize::from(*at) % changed.len();
        changed[at] = *byte;
    }
    for text in [String::from_utf8(changed).ok(), Some(input.foreign.clone())] {
        let Some(text) = text.filter(|text| *text != sealed) else {
            continue;
        };
        // A fuzzer remembers what was sealed for other inputs, and that may open.
        if let Some(opened) = open(keys, purpose, &text, context) {
            assert_ne!(opened, *plain);
            assert_eq!(keys.seal(purpose, &opened, context), text);
        }
    }
})));
