//! Clients that prove who they are with a key, by an assertion that they sign for each request
//! (RFC 7523, `private_key_jwt`).

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::{sync::Arc, time::Duration};

use http::header;
use jsonwebtoken::Algorithm;
use protocol::{
    oauth::{
        client::{ClientMetadata, PreregisteredClient},
        client_assertion::JWT_BEARER,
        client_auth::AuthMethod,
        client_document::DocumentUrl,
        identifiers::ClientId,
        jwks::{KeySet, KeySource},
        redirect_uri::RedirectUri,
    },
    policy::Policy,
    ports::{FetchError, Timestamp},
    rates::Rate,
};
use serde_json::{Value, json};
use support::{
    Answer, ISSUER, TestServer,
    assertion::{Signer, encoded},
    client::{McpClient, REDIRECT_URI, Tokens, VERIFIER, query},
    policy,
};

/// A client that the operator set up.
const BATCH: &str = "batch";
/// One that publishes a document, and its keys elsewhere.
const PUBLISHED: &str = "https://client.example/oauth/client.json";
const JWKS_URI: &str = "https://keys.example/jwks.json";

/// Fields of a form, and the status and error that answer them.
type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'a str);

const MINUTE: Duration = Duration::from_mins(1);

/// A policy with [`BATCH`], whose public keys are these.
fn with_keys(keys: &Value) -> Policy {
    let keys = KeySet::parse(keys.to_string().as_bytes()).unwrap();
    with_key_source(KeySource::Inline(keys))
}

fn with_key_source(keys: KeySource) -> Policy {
    let mut policy = policy(&[("one", "/mcp")]);
    policy
        .clients
        .preregistered
        .push(Arc::new(PreregisteredClient {
            client_id: ClientId::presented(BATCH),
            metadata: ClientMetadata {
                client_name: "Batch".to_owned(),
                redirect_uris: vec![RedirectUri::parse(REDIRECT_URI).unwrap()],
                token_endpoint_auth_method: AuthMethod::PrivateKeyJwt,
                keys: Some(keys),
            },
            secret_digest: None,
        }));
    policy
}

/// A server that knows the key of [`Signer::p256`], and the client that has it.
fn server_and_client() -> (TestServer, McpClient) {
    let server = TestServer::with(with_keys(&Signer::p256().jwks()));
    let client = McpClient::by_document(&server, BATCH, REDIRECT_URI).signing_with(Signer::p256());
    (server, client)
}

/// A server where [`PUBLISHED`] publishes its document and these keys.
fn server_and_published(signer: Signer) -> (TestServer, McpClient) {
    let server = TestServer::new();
    server.fetch.publish(
        PUBLISHED,
        &json!({
            "client_id": PUBLISHED,
            "client_name": "Published",
            "redirect_uris": ["https://client.example/cb"],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": JWKS_URI,
        }),
    );
    server.fetch.publish(JWKS_URI, &signer.jwks());
    let client = McpClient::by_document(&server, PUBLISHED, "https://client.example/cb");
    let client = client.signing_with(signer);
    (server, client)
}

/// Redeems a code with whatever stands for an assertion, and nothing else to authenticate.
async fn redeem_by(client: &McpClient, code: &str, fields: &[(&str, &str)]) -> Answer {
    let mut all = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("code_verifier", VERIFIER),
    ];
    all.extend(fields);
    client.server.post_form("/token", &all).await
}

async fn redeem_with(client: &McpClient, code: &str, assertion: &str) -> Answer {
    let fields = [
        ("client_id", &*client.client_id),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion),
    ];
    redeem_by(client, code, &fields).await
}

/// CI-11, ASM-04
#[tokio::test]
async fn ci_11_each_algorithm_that_is_advertised_works_from_code_to_revocation() {
    let signers = [
        Signer::rsa(Algorithm::RS256),
        Signer::rsa(Algorithm::PS256),
        Signer::p256(),
        Signer::ed25519(),
    ];
    let metadata = TestServer::new()
        .get("/.well-known/oauth-authorization-server")
        .await
        .json();
    for endpoint in ["token", "revocation"] {
        let methods = &metadata[format!("{endpoint}_endpoint_auth_methods_supported")];
        assert!(
            methods
                .as_array()
                .unwrap()
                .contains(&json!("private_key_jwt"))
        );
        assert_eq!(
            metadata[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")],
            json!(signers.each_ref().map(Signer::alg)),
        );
    }
    for signer in signers {
        let server = TestServer::with(with_keys(&signer.jwks()));
        let client = McpClient::by_document(&server, BATCH, REDIRECT_URI).signing_with(signer);
        let tokens = client.sign_in().await;
        let _ = client.call(&tokens).await.expect(200);
        let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
        let _ = client.call(&tokens).await.expect(200);
        let _ = client.revoke(&tokens.refresh_token).await.expect(200);
        let _ = client.call(&tokens).await.expect(401);
    }
}

/// RFC 7521 §4.2: the assertion names the client by itself.
#[tokio::test]
async fn a_client_id_beside_an_assertion_may_be_left_out_but_not_be_another() {
    let (server, client) = server_and_client();
    let code = client.code().await;
    let assertion = Signer::p256().assertion(&server, BATCH);
    let named = |client_id| {
        [
            ("client_id", client_id),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &*assertion),
        ]
    };
    let other = server.mcp_client().await;
    let before = server.state();
    for another in [&*other.client_id, "nobody", "Batch"] {
        let answer = redeem_by(&client, &code, &named(another)).await;
        let _ = answer.refused(401, "invalid_client");
    }
    assert_eq!(server.state(), before);
    let _ = redeem_by(&client, &code, &named(BATCH)[1..])
        .await
        .expect(200);
}

/// CI-11
// N-TK-24, N-JW-07 to N-JW-16
#[tokio::test]
async fn ci_11_an_assertion_that_says_anything_else_is_refused_and_consumes_nothing() {
    let (server, client) = server_and_client();
    let signer = Signer::p256();
    let code = client.code().await;
    let Timestamp(now) = server.now();
    let long = "x".repeat(257);
    let changed = |claim: &str, value: Value| {
        let mut claims = Signer::claims(&server, BATCH);
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
            value => claims[claim] = value,
        }
        signer.sign(&signer.header(), &claims)
    };
    let token_endpoint = format!("{ISSUER}/token");
    for (claim, value) in [
        ("iss", Value::Null),
        ("iss", json!("other")),
        ("iss", json!(["batch"])),
        ("sub", Value::Null),
        ("sub", json!("owner")),
        ("aud", Value::Null),
        ("aud", json!("https://other.example")),
        ("aud", json!(format!("{ISSUER}/"))),
        ("aud", json!(format!("{ISSUER}/mcp"))),
        ("aud", json!(format!("{ISSUER}/token/"))),
        ("aud", json!(ISSUER.to_uppercase())),
        ("aud", json!([])),
        ("aud", json!([ISSUER, "https://other.example"])),
        ("aud", json!([ISSUER, token_endpoint])),
        ("aud", json!({ "x": ISSUER })),
        ("exp", Value::Null),
        ("exp", json!(now - 60)),
        ("exp", json!(now + 361)),
        ("exp", json!((now + 300).to_string())),
        ("exp", json!(1e308)),
        ("exp", json!(-1)),
        ("exp", json!(i64::MAX)),
        ("exp", json!(u64::MAX)),
        ("iat", json!(now + 61)),
        ("iat", json!("now")),
        ("nbf", json!(now + 61)),
        ("jti", Value::Null),
        ("jti", json!("")),
        ("jti", json!(4)),
        ("jti", json!(long)),
    ] {
        let before = server.state();
        let answer = redeem_with(&client, &code, &changed(claim, value.clone())).await;
        let answer = answer.refused(401, "invalid_client");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(server.state(), before, "{claim} {value}");
    }
    for (claim, value) in [
        ("aud", json!(ISSUER)),
        ("aud", json!(token_endpoint)),
        ("aud", json!([ISSUER])),
        ("exp", json!(now - 59)),
        ("exp", json!(now + 360)),
        ("exp", json!(Value::from(300.5 + 1_790_000_000.0))),
        ("iat", Value::Null),
        ("iat", json!(now + 60)),
        ("nbf", json!(now - 1)),
        ("jti", json!(long[1..])),
        ("foo", json!({ "bar": 1 })),
    ] {
        let code = client.code().await;
        let answer = redeem_with(&client, &code, &changed(claim, value)).await;
        let _ = answer.expect(200);
    }
    // And the first code is still good.
    let _ = client.redeem(&code).await.expect(200);
}

/// CI-11
// N-TK-24, N-JW-01 to N-JW-06, N-JW-17 to N-JW-25
#[expect(clippy::too_many_lines, reason = "one line for each attempt")]
#[tokio::test]
async fn ci_11_an_assertion_that_is_not_signed_by_the_client_is_refused() {
    let (server, client) = server_and_client();
    let signer = Signer::p256();
    let stranger = Signer::of_another();
    let code = client.code().await;
    let claims = || Signer::claims(&server, BATCH);
    let header = |member: &str, value: Value| {
        let mut header = signer.header();
        header[member] = value;
        header
    };
    let good = signer.assertion(&server, BATCH);
    let parts: Vec<&str> = good.split('.').collect();
    let other = signer.assertion(&server, BATCH);
    let other_signature = other.rsplit('.').next().unwrap();
    let unsigned = |alg: &str| {
        let header = encoded(json!({ "alg": alg }).to_string());
        format!("{header}.{}", encoded(claims().to_string()))
    };
    // A public key taken for a shared secret.
    let hs256 = {
        use hmac::{Hmac, KeyInit, Mac};
        let message = unsigned("HS256");
        let public = signer.jwk().to_string();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(public.as_bytes()).unwrap();
        mac.update(message.as_bytes());
        format!("{message}.{}", encoded(mac.finalize().into_bytes()))
    };
    let mut bad = vec![
        String::new(),
        "x".into(),
        ".".into(),
        "..".into(),
        "a.b.c".into(),
        hs256,
        stranger.assertion(&server, BATCH),
        Signer::of_another()
            .named("other")
            .assertion(&server, BATCH),
        Signer::p256().named("other").assertion(&server, BATCH),
        Signer::p256().named("../../p256").assertion(&server, BATCH),
        Signer::p256()
            .named("p256' OR 1=1")
            .assertion(&server, BATCH),
        Signer::p256()
            .named(&"k".repeat(257))
            .assertion(&server, BATCH),
        Signer::rsa(Algorithm::RS256)
            .named("p256")
            .assertion(&server, BATCH),
        // The right signature under another algorithm's name.
        signer.sign(&header("alg", json!("RS256")), &claims()),
        signer.sign(&header("alg", json!("EdDSA")), &claims()),
        signer.sign(&header("alg", json!("es256")), &claims()),
        signer.sign(&header("alg", json!(["ES256"])), &claims()),
        signer.sign(&header("alg", Value::Null), &claims()),
        signer.sign(&header("kid", json!(["p256"])), &claims()),
        signer.sign(&header("typ", json!("at+jwt")), &claims()),
        signer.sign(&header("typ", json!("dpop+jwt")), &claims()),
        signer.sign(&header("typ", json!(1)), &claims()),
        signer.sign(&header("crit", json!(["exp"])), &claims()),
        signer.sign(&header("b64", json!(false)), &json!([claims()])),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.x"),
        format!("{good}.x.y"),
        format!("{good}="),
        format!("{good} "),
        format!(" {good}"),
        format!("{}.{}.{other_signature}", parts[0], parts[1]),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        signer.sign_text(
            r#"{"alg":"ES256","kid":"p256","alg":"ES256"}"#,
            &claims().to_string(),
        ),
        {
            let twice = claims().to_string().replacen('{', r#"{"sub":"owner","#, 1);
            signer.sign_text(&signer.header().to_string(), &twice)
        },
        {
            let mut claims = claims();
            claims["x"] = json!("x".repeat(8 * 1024));
            signer.sign(&signer.header(), &claims)
        },
    ];
    // Keys that the assertion brings along, or says where to find.
    for (member, value) in [
        ("jwk", stranger.jwk()),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/x.pem")),
        ("x5c", json!(["AAAA"])),
    ] {
        bad.push(stranger.sign(&header(member, value), &claims()));
    }
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        bad.push(format!("{}.", unsigned(alg)));
        bad.push(format!("{}.{}", unsigned(alg), parts[2]));
    }
    for assertion in &bad {
        let before = server.state();
        let answer = redeem_with(&client, &code, assertion).await;
        assert!([400, 401].contains(&answer.status.as_u16()), "{assertion}");
        if !assertion.is_empty() {
            let _ = answer.refused(401, "invalid_client");
        }
        assert_eq!(server.state(), before, "{assertion}");
    }
    assert_eq!(server.fetch.asked(), [] as [&str; 0]);
    let _ = redeem_with(&client, &code, &good).await.expect(200);
}

#[tokio::test]
async fn an_assertion_may_have_8192_bytes_and_not_one_more() {
    let (server, client) = server_and_client();
    let signer = Signer::p256();
    // A part in base64 has no length that leaves one over by four, so two are padded.
    let of_length = |length: usize| {
        let mut claims = Signer::claims(&server, BATCH);
        let mut padded = |in_header: usize, in_claims: usize| {
            let mut header = signer.header();
            header["x"] = json!("x".repeat(in_header));
            claims["x"] = json!("x".repeat(in_claims));
            signer.sign(&header, &claims)
        };
        let missing = (length - padded(0, 0).len()) * 3 / 4;
        let paddings = (0..3).flat_map(|n| (missing - 4..missing + 4).map(move |m| (n, m)));
        let mut fitting = paddings.map(|(header, claims)| padded(header, claims));
        fitting.find(|assertion| assertion.len() == length).unwrap()
    };
    let code = client.code().await;
    let before = server.state();
    let answer = redeem_with(&client, &code, &of_length(8193)).await;
    let _ = answer.refused(401, "invalid_client");
    assert_eq!(server.state(), before);
    let answer = redeem_with(&client, &code, &of_length(8192)).await;
    let _ = answer.expect(200);
}

#[tokio::test]
async fn the_name_of_a_key_may_have_256_bytes_and_not_one_more() {
    for (length, status) in [(256, 200), (257, 401)] {
        let named = || Signer::p256().named(&"k".repeat(length));
        let server = TestServer::with(with_keys(&named().jwks()));
        let client = McpClient::by_document(&server, BATCH, REDIRECT_URI).signing_with(named());
        let code = client.code().await;
        let _ = client.redeem(&code).await.expect(status);
    }
}

// N-JW-06, N-JW-25
#[tokio::test]
async fn no_changed_assertion_is_taken() {
    let (server, client) = server_and_client();
    let code = client.code().await;
    let good = Signer::p256().assertion(&server, BATCH);
    let before = server.state();
    for index in 0..good.len() {
        let mut changed = good.clone().into_bytes();
        // The last character of each part has bits that decode to nothing, so this sees also
        // whether another spelling of the same bytes is taken.
        changed[index] = match changed[index] {
            b'A' => b'B',
            b'.' => b'-',
            byte if byte.is_ascii_alphanumeric()
                && byte != b'z'
                && byte != b'Z'
                && byte != b'9' =>
            {
                byte + 1
            }
            _ => b'A',
        };
        let changed = String::from_utf8(changed).unwrap();
        let answer = redeem_with(&client, &code, &changed).await;
        let _ = answer.refused(401, "invalid_client");
    }
    assert_eq!(server.state(), before);
    let _ = redeem_with(&client, &code, &good).await.expect(200);
}

/// CI-11
// N-TK-24: `jti`
#[tokio::test]
async fn ci_11_an_assertion_works_once_on_whatever_process() {
    let (server, client) = server_and_client();
    let beside = server.another(with_keys(&Signer::p256().jwks()));
    let (first, second) = (client.code().await, client.code().await);
    let assertion = Signer::p256().assertion(&server, BATCH);

    // A request that is refused for another reason does not use it up.
    let before = server.state();
    let answer = redeem_with(&client, "mopc_unknown", &assertion).await;
    let _ = answer.refused(400, "invalid_grant");
    assert_eq!(server.state(), before);

    let tokens = Tokens::of(&redeem_with(&client, &first, &assertion).await.expect(200));
    for process in [&server, &beside] {
        let before = process.state();
        let again = client.on(process);
        let answer = redeem_with(&again, &second, &assertion).await;
        let answer = answer.refused(401, "invalid_client");
        assert!(answer.text().contains("used before"), "{answer:#?}");
        let fields = [
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &assertion),
            ("grant_type", "refresh_token"),
            ("refresh_token", &tokens.refresh_token),
        ];
        let answer = process.post_form("/token", &fields).await;
        let _ = answer.refused(401, "invalid_client");
        let fields = [
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &assertion),
            ("token", &tokens.refresh_token),
        ];
        let answer = process.post_form("/revoke", &fields).await;
        let _ = answer.refused(401, "invalid_client");
        assert_eq!(process.state(), before);
    }
    let _ = client.call(&tokens).await.expect(200);
    let _ = client.redeem(&second).await.expect(200);
    let _ = client.refresh(&tokens).await.expect(200);
}

/// An assertion that was overheard, with a refresh token that was, must not end the grant.
#[tokio::test]
async fn an_old_assertion_with_an_old_refresh_token_ends_nothing() {
    let (server, client) = server_and_client();
    let first = client.sign_in().await;
    let assertion = Signer::p256().assertion(&server, BATCH);
    let refresh = |tokens: &Tokens, assertion: &str| {
        let fields = [
            ("client_assertion_type", JWT_BEARER.to_owned()),
            ("client_assertion", assertion.to_owned()),
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", tokens.refresh_token.clone()),
        ];
        let server = server.clone();
        async move {
            let fields: Vec<_> = fields.iter().map(|(name, text)| (*name, &**text)).collect();
            server.post_form("/token", &fields).await
        }
    };
    let second = Tokens::of(&refresh(&first, &assertion).await.expect(200));
    let third = Tokens::of(&client.refresh(&second).await.expect(200));
    let answer = refresh(&first, &assertion).await;
    let _ = answer.refused(401, "invalid_client");
    let _ = client.call(&third).await.expect(200);
}

/// TK-22
#[tokio::test]
async fn a_store_in_trouble_while_an_assertion_is_spent_costs_nothing() {
    let (server, client) = server_and_client();
    let code = client.code().await;
    let (_, writes) = server.store.accesses();
    server.store.fail_nth(2);
    let answer = client.redeem(&code).await;
    let _ = answer.refused(503, "temporarily_unavailable");
    assert!(server.store.accesses().1 <= writes + 1);
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = client.call(&tokens).await.expect(200);
}

/// TK-13
// N-TK-13, N-TK-15, N-TK-16
#[tokio::test]
async fn tk_13_a_client_with_a_key_authenticates_with_that_and_with_nothing_else() {
    let (server, client) = server_and_client();
    let code = client.code().await;
    let assertion = Signer::p256().assertion(&server, BATCH);
    let typed = ("client_assertion_type", JWT_BEARER);
    let signed = ("client_assertion", &*assertion);
    let named = ("client_id", BATCH);
    let cases: [Case<'_>; 8] = [
        (&[named], 401, "invalid_client"),
        (&[named, ("client_secret", "x")], 401, "invalid_client"),
        (
            &[named, typed, signed, ("client_secret", "x")],
            400,
            "invalid_request",
        ),
        (&[named, typed], 400, "invalid_request"),
        (&[named, signed], 400, "invalid_request"),
        (
            &[
                named,
                signed,
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
                ),
            ],
            401,
            "invalid_client",
        ),
        (&[named, typed, signed, signed], 400, "invalid_request"),
        (&[named, typed, typed, signed], 400, "invalid_request"),
    ];
    let before = server.state();
    for (fields, status, error) in cases {
        let answer = redeem_by(&client, &code, fields).await;
        let _ = answer.refused(status, error);
    }
    let mut request = support::form(
        "/token",
        &[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("code_verifier", VERIFIER),
            typed,
            signed,
        ],
    );
    let basic = "Basic YmF0Y2g6".parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, basic);
    let _ = server.send(request).await.refused(400, "invalid_request");
    assert_eq!(server.state(), before);
    let _ = redeem_by(&client, &code, &[named, typed, signed])
        .await
        .expect(200);
}

/// A client that has no key proves nothing by signing with one.
#[tokio::test]
async fn an_assertion_of_a_client_without_keys_is_refused() {
    let server = TestServer::new();
    let public = server.mcp_client().await;
    let secret = McpClient::register(&server, &json!({})).await;
    let other = "https://client.example/plain.json";
    let document = json!({
        "client_id": other, "client_name": "Plain", "redirect_uris": [REDIRECT_URI],
    });
    server.fetch.publish(other, &document);
    let published = McpClient::by_document(&server, other, REDIRECT_URI);
    for client in [public, secret, published] {
        let code = client.code().await;
        let signing = McpClient {
            client_secret: None,
            ..client.signing_with(Signer::p256())
        };
        let _ = signing.redeem(&code).await.refused(401, "invalid_client");
        let _ = client.redeem(&code).await.expect(200);
    }
}

/// CI-11, CIM-14
// N-CI-23
#[tokio::test]
async fn ci_11_a_document_that_demands_a_key_is_held_to_it_at_every_step() {
    let (server, client) = server_and_published(Signer::p256());
    let without = McpClient {
        signer: None,
        ..client.clone()
    };
    let code = client.code().await;
    let before = server.state();
    let _ = without.redeem(&code).await.refused(401, "invalid_client");
    assert_eq!(server.state(), before);
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));

    let before = server.state();
    let _ = without
        .refresh(&tokens)
        .await
        .refused(401, "invalid_client");
    // As good as unknown to it, so nothing is told and nothing happens.
    let _ = without.revoke(&tokens.refresh_token).await.expect(200);
    assert_eq!(server.state(), before);
    let _ = client.call(&tokens).await.expect(200);
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let _ = client.revoke(&tokens.access_token).await.expect(200);
    let _ = client.call(&tokens).await.expect(401);
    assert_eq!(server.fetch.asked(), [PUBLISHED, JWKS_URI]);
}

/// CI-11
// N-JW-20
#[tokio::test]
async fn ci_11_an_unknown_key_makes_us_ask_once_in_a_minute() {
    let (server, client) = server_and_published(Signer::p256());
    let tokens = client.sign_in().await;
    let asked = || {
        let all = server.fetch.asked();
        all.iter().filter(|url| *url == JWKS_URI).count()
    };
    assert_eq!(asked(), 1);
    let flood = async || {
        for n in 0..50 {
            let stranger = Signer::of_another().named(&format!("k{n}"));
            let answer = client.signing_with(stranger).refresh(&tokens).await;
            let _ = answer.refused(401, "invalid_client");
        }
    };
    // What was fetched less than a minute ago is not fetched again.
    flood().await;
    assert_eq!(asked(), 1);
    // Fresh for an hour, but asked for again, once.
    let fresh = [(header::CACHE_CONTROL, "max-age=3600".parse().unwrap())];
    let headers = fresh.into_iter().collect();
    let keys = Signer::p256().jwks().to_string();
    server.fetch.publish_with(JWKS_URI, keys, &headers);
    server.clock.advance(MINUTE);
    flood().await;
    assert_eq!(asked(), 2);
    server.clock.advance(MINUTE);
    flood().await;
    assert_eq!(asked(), 3);

    // And so a new key is known within a minute, and the old one is not any more.
    let renamed = client.signing_with(Signer::of_another().named("new"));
    let keys = Signer::of_another().named("new").jwks().to_string();
    server.fetch.publish_with(JWKS_URI, keys, &headers);
    let _ = renamed
        .refresh(&tokens)
        .await
        .refused(401, "invalid_client");
    server.clock.advance(MINUTE);
    let tokens = Tokens::of(&renamed.refresh(&tokens).await.expect(200));
    let _ = client.refresh(&tokens).await.refused(401, "invalid_client");
    let _ = renamed.refresh(&tokens).await.expect(200);
}

/// CI-11, TK-22
// N-TK-24: `jwks_uri` inside RFC 6890 space
#[tokio::test]
async fn ci_11_keys_that_cannot_be_fetched_are_a_fault_that_passes_and_consume_nothing() {
    let failures: [fn() -> FetchError; 4] = [
        || FetchError::Refused,
        || FetchError::TimedOut,
        || FetchError::Status(http::StatusCode::NOT_FOUND),
        || FetchError::TooLarge,
    ];
    for failure in failures {
        let (server, client) = server_and_published(Signer::p256());
        let code = client.code().await;
        server.fetch.answer(JWKS_URI, move || Err(failure()));
        let before = server.state();
        let answer = client.redeem(&code).await;
        let answer = answer.refused(503, "temporarily_unavailable");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        assert_eq!(server.state(), before);
        server.fetch.publish(JWKS_URI, &Signer::p256().jwks());
        let tokens = Tokens::of(&client.redeem(&code).await.expect(200));

        // Once they came, a copy stands in for a day when the network fails, and no longer.
        server.fetch.answer(JWKS_URI, || Err(FetchError::TimedOut));
        server.clock.advance(Duration::from_hours(23));
        let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
        server.clock.advance(Duration::from_hours(2));
        let answer = client.refresh(&tokens).await;
        let _ = answer.refused(503, "temporarily_unavailable");
    }
}

/// CI-11, CIM-11: strangers use up what is asked for in all, at the same host and elsewhere, and
/// have the same URL fail as a document that it is not.
#[tokio::test]
async fn the_keys_of_a_client_that_the_operator_set_up_share_nothing_with_strangers() {
    let named = KeySource::At(DocumentUrl::parse(JWKS_URI).unwrap());
    let mut policy = with_key_source(named);
    let few = |most| Some(Rate { most, per: MINUTE });
    policy.limits.documents_per_host = few(2);
    policy.limits.documents = few(2);
    let server = TestServer::with(policy);
    server.fetch.publish(JWKS_URI, &Signer::p256().jwks());
    let client = McpClient::by_document(&server, BATCH, REDIRECT_URI).signing_with(Signer::p256());
    let floods = async || {
        for n in 0..1000 {
            let host = if n % 2 == 0 {
                "keys"
            } else {
                &*format!("h{n}")
            };
            for id in [JWKS_URI, &format!("https://{host}.example/{n}")] {
                let stranger = McpClient::by_document(&server, id, REDIRECT_URI);
                let _ = stranger
                    .opens(&query(&stranger.authorization()))
                    .await
                    .1
                    .expect(400);
            }
        }
    };
    let asked = || server.fetch.asked().len();
    floods().await;
    for limit in [
        "DocumentFetchesPerAddress",
        "DocumentFetchesPerHost",
        "DocumentFetches,",
    ] {
        let told = format!("Limited {{ limit: {limit}");
        assert!(server.journal.count(&told) > 0, "{limit}");
    }
    let before = asked();
    let tokens = client.sign_in().await;
    assert_eq!(asked(), before + 1);
    server.clock.advance(MINUTE);
    floods().await;
    let before = asked();
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    assert_eq!(asked(), before + 1);

    // The client of a stranger, on the same ground, gets none.
    server.clock.advance(MINUTE);
    floods().await;
    let id = "https://keys.example/of/a/stranger";
    let stranger = McpClient::by_document(&server, id, REDIRECT_URI).signing_with(Signer::p256());
    let answer = stranger.refresh(&tokens).await;
    let _ = answer.refused(503, "temporarily_unavailable");
    // When its own host is silent, the copy stands in, and it is not asked without end.
    server.fetch.answer(JWKS_URI, || Err(FetchError::TimedOut));
    let before = asked();
    let mut tokens = tokens;
    for _ in 0..10 {
        tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    }
    assert_eq!(asked(), before + 2);
}

/// CI-11
// N-RG-34
#[tokio::test]
async fn ci_11_a_key_set_that_breaks_the_rules_proves_nothing() {
    let (server, client) = server_and_published(Signer::p256());
    let code = client.code().await;
    let private = |member: &str| {
        let mut key = Signer::p256().jwk();
        key[member] = json!("AAAA");
        json!({ "keys": [key] }).to_string()
    };
    let key = Signer::p256().jwk();
    let with = |member: &str, value: Value| {
        let mut key = key.clone();
        key[member] = value;
        json!({ "keys": [key] }).to_string()
    };
    for bad in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"keys":[]}"#.to_owned(),
        format!("{{\"keys\":[{key}],\"keys\":[{key}]}}"),
        private("d"),
        private("k"),
        with("kty", json!("oct")),
        with("crv", json!("P-384")),
        with("use", json!("enc")),
        with("alg", json!("ES384")),
        with("x", json!("AAAA")),
        json!({ "keys": vec![key.clone(); 11] }).to_string(),
    ] {
        let before = server.state();
        server
            .fetch
            .publish_with(JWKS_URI, bad.clone(), &http::HeaderMap::new());
        server.clock.advance(MINUTE);
        let answer = client.redeem(&code).await;
        let _ = answer.refused(401, "invalid_client");
        assert_eq!(server.state(), before, "{bad}");
    }
    let code = client.code().await;
    let also = json!({ "keys": [
        { "kty": "oct" }, { "kty": "AKP" }, { "kty": "EC", "crv": "secp256k1" }, key,
    ] });
    server.fetch.publish(JWKS_URI, &also);
    server.clock.advance(MINUTE);
    let _ = client.redeem(&code).await.expect(200);
}
