//! Z06: a document counts only at the address that it names, and that address has one reading.
#![no_main]

use fluent_uri::Uri;
use fuzz::judge;
use libfuzzer_sys::fuzz_target;
use protocol::oauth::client_document::{self, DocumentUrl};
use serde_json::{Value, json};

// The first line is the address, the rest the document.
fuzz_target!(|input: &[u8]| judge(|| {
    let end = input
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(input.len());
    let Ok(address) = std::str::from_utf8(&input[..end]) else {
        return;
    };
    let Some(url) = DocumentUrl::parse(address) else {
        return;
    };
    assert_eq!((url.as_str(), url.as_url().as_str()), (address, address));
    if let Ok(strict) = Uri::parse(address) {
        let authority = strict.authority().expect("it has a host");
        assert_eq!(strict.scheme().as_str(), "https");
        assert_eq!(authority.host(), url.host());
        assert_eq!(authority.as_str(), url.host());
        assert!(strict.query().is_none() && strict.fragment().is_none());
        assert!(strict.path().as_str().len() > 1);
    }
    let document = input.get(end + 1..).unwrap_or_default();
    let Ok(metadata) = client_document::parse(&url, document, &[]) else {
        return;
    };
    let read: Value = serde_json::from_slice(document).expect("it is JSON");
    assert_eq!(read["client_id"], address);
    assert!(!metadata.client_name.trim().is_empty() && !metadata.redirect_uris.is_empty());
    let elsewhere = DocumentUrl::parse(&format!("{address}x"));
    assert!(elsewhere.is_none_or(|url| client_document::parse(&url, document, &[]).is_err()));
    let echo = json!({
        "client_id": address,
        "client_name": metadata.client_name,
        "redirect_uris": metadata.redirect_uris,
    });
    let again = client_document::parse(&url, echo.to_string().as_bytes(), &[]);
    let again = again.expect("the echo is a document");
    assert_eq!(again.client_name, metadata.client_name);
    assert_eq!(again.redirect_uris, metadata.redirect_uris);
}));
