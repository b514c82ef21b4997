//! Z02: a registered redirect URI is matched by itself, and on this computer by any port.
#![no_main]

use fluent_uri::Uri;
use fuzz::judge;
use libfuzzer_sys::fuzz_target;
use protocol::oauth::redirect_uri::RedirectUri;

/// Everything but the port.
fn without_port(text: &str) -> Option<(String, String, String, Option<String>)> {
    let uri = Uri::parse(text).ok()?;
    let authority = uri.authority()?;
    let is_here = ["127.0.0.1", "[::1]", "localhost"].contains(&authority.host());
    (is_here && uri.scheme().as_str() == "http" && !authority.has_userinfo()).then(|| {
        (
            authority.host().to_owned(),
            uri.path().to_string(),
            uri.scheme().to_string(),
            uri.query().map(ToString::to_string),
        )
    })
}

// Two lines: what is registered, and what is presented.
fuzz_target!(|text: &str| judge(|| {
    let Some((registered, presented)) = text.split_once('\n') else {
        return;
    };
    let Some(registered) = RedirectUri::parse(registered) else {
        return;
    };
    assert!(registered.matches(registered.as_str()));
    if !registered.matches(presented) {
        return;
    }
    if registered.as_str() != presented {
        assert!(registered.is_loopback());
        let same = without_port(presented);
        assert!(same.is_some() && same == without_port(registered.as_str()));
    }
    let other = RedirectUri::parse(presented).expect("what matches could be registered");
    assert!(other.matches(registered.as_str()));
}));
