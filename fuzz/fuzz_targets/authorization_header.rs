//! Z08: credentials in the `Authorization` header have one reading.
#![no_main]

use arbitrary::Arbitrary;
use data_encoding::BASE64;
use fuzz::{Stage, TestServer, block_on, form, patient_server};
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use protocol::oauth::{
    bearer::{self, Refused},
    client_auth::Presented,
    form::Form,
};

#[derive(Arbitrary, Debug)]
struct Input {
    values: Vec<Vec<u8>>,
    /// Sent as `Basic` beside the raw values.
    pair: Option<(String, String)>,
    query: Option<String>,
    body: String,
}

thread_local! {
    static STAGE: Stage<TestServer> = const { Stage::new(|| patient_server(&[("one", "/mcp")])) };
}

/// Percent-decoding as forms have it, of the whole text.
fn decoded(text: &str) -> String {
    let escaped = text.replace('&', "%26").replace('=', "%3D");
    let mut pairs = url::form_urlencoded::parse(escaped.as_bytes());
    pairs
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

fuzz_target!(|input: Input| STAGE.with(|stage| stage.judge(|server| {
    let mut headers = HeaderMap::new();
    let pair = input.pair.map(|(user, password)| {
        format!(
            "Basic {}",
            BASE64.encode(format!("{user}:{password}").as_bytes())
        )
        .into_bytes()
    });
    for value in input.values.into_iter().chain(pair) {
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(header::AUTHORIZATION, value);
        }
    }
    let values: Vec<&HeaderValue> = headers.get_all(header::AUTHORIZATION).iter().collect();

    let token = bearer::presented(&headers, input.query.as_deref());
    match (&values[..], token) {
        ([], token) => assert_eq!(token, Err(Refused::NoToken)),
        ([one], Ok(token)) => {
            let text = one.to_str().expect("a token is text");
            assert!(text[..7].eq_ignore_ascii_case("Bearer "));
            assert_eq!(&text[7..], token);
            let query = input.query.as_deref().unwrap_or_default();
            let names = url::form_urlencoded::parse(query.as_bytes());
            assert!(
                names
                    .map(|(name, _)| name)
                    .all(|name| name != "access_token")
            );
        }
        ([_], Err(_)) => {}
        (_, token) => assert_eq!(token, Err(Refused::Malformed)),
    }

    let form_of_body = Form::parse(input.body.as_bytes());
    if let ([one], Ok(form)) = (&values[..], form_of_body)
        && let Ok(text) = one.to_str()
        && let Ok(presented) = Presented::read(Some(text), &form)
        && presented.by_header
    {
        assert!(token.is_err());
        let (scheme, credentials) = text.split_once(' ').expect("a scheme and credentials");
        assert!(scheme.eq_ignore_ascii_case("Basic"));
        let pair = BASE64
            .decode(credentials.trim_start().as_bytes())
            .expect("base64");
        let pair = String::from_utf8(pair).expect("UTF-8");
        let (user, _) = pair.split_once(':').expect("a colon");
        assert_eq!(presented.client_id.as_str(), decoded(user));
    }

    if values.len() > 1 {
        block_on(async {
            let mut request = form("/token", &[("grant_type", "refresh_token")]);
            request.headers_mut().extend(headers.clone());
            let before = server.store.accesses();
            let _ = server.send(request).await.refused(400, "invalid_request");
            assert_eq!(server.store.accesses(), before);
        });
    }
})));
