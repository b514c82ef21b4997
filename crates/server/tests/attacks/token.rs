//! Codes at the token endpoint (TK).

use std::{fmt::Write, sync::Arc, time::Duration};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, Request, header};
use serde_json::json;
use tokio::time::Instant;

use super::{
    case::{Case, case},
    client_assertions,
    refusal::Refusal::{OAuth, Page},
    support::{
        PASSPHRASE,
        client::{Answer, Client, Parameters, Tokens, VERIFIER},
        wire::Wire,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("N-TK-02", "the form as another content type", other_types),
        case("N-TK-03", "the parameters in the query", in_query),
        case("N-TK-04", "each parameter twice", each_twice),
        case(
            "N-TK-10",
            "the verifier of another authorization request",
            foreign_verifier,
        ),
        case("N-TK-11", "another client's code", foreign_code),
        case(
            "N-TK-13",
            "one client in the header and another in the body",
            two_clients,
        ),
        case(
            "N-TK-14",
            "a secret from a client that has none",
            needless_secret,
        ),
        case(
            "N-TK-16",
            "client authentication of another kind, or of two",
            other_authentication,
        ),
        case(
            "N-TK-19",
            "a code that expired, is changed, cut, from elsewhere, or is no code",
            no_code,
        ),
        case(
            "N-TK-20",
            "the beginning of a redeemed code with another end",
            half_code,
        ),
        case("N-TK-21", "a code twice", code_twice),
        case(
            "N-TK-22",
            "a redeemed code, replayed by another client",
            replayed_elsewhere,
        ),
        case(
            "N-TK-23",
            "malformed and unusual Basic credentials",
            odd_basic,
        ),
        case(
            "N-TK-24",
            "a client assertion that is used up, or wrong in what it says or in who signed it",
            client_assertions::are_refused,
        ),
        case("N-TK-25", "a body that does not end", endless_body),
        case(
            "N-TK-26",
            "an answer that tells or leaves too much",
            answers,
        ),
        case(
            "N-TK-27",
            "telling an unknown code from a wrong verifier by the time it takes",
            timing,
        ),
        case("N-TK-28", "a store that fails at each step", store_fails),
    ];
    cases.extend(
        CHANGED
            .iter()
            .map(|(id, tried, changes)| case(id, tried, |world| changed(world, changes))),
    );
    cases
}

/// What is changed in a good request, with status and error of the refusal.
type Change = (fn(Parameters) -> Parameters, u16, &'static str);

#[rustfmt::skip]
const CHANGED: &[(&str, &str, &[Change])] = &[
    ("N-TK-01", "any other `grant_type`, or none", &[
        (|good| good.without("grant_type"), 400, "invalid_request"),
        (|good| good.with("grant_type", ""), 400, "invalid_request"),
        (|good| good.with("grant_type", "unknown"), 400, UNSUPPORTED),
        (|good| good.with("grant_type", "Authorization_Code"), 400, UNSUPPORTED),
        (|good| good.with("grant_type", "password").and("username", "owner").and("password", PASSPHRASE), 400, UNSUPPORTED),
        (|good| good.with("grant_type", "implicit"), 400, UNSUPPORTED),
        (|good| good.with("grant_type", "client_credentials"), 400, UNSUPPORTED),
        (|good| good.with("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer").and("assertion", "e30.e30."), 400, UNSUPPORTED),
    ]),
    ("N-TK-05", "no `code_verifier`", &[
        (|good| good.without("code_verifier"), 400, "invalid_request"),
        (|good| good.with("code_verifier", ""), 400, "invalid_request"),
    ]),
    ("N-TK-06", "a wrong `code_verifier`", &[
        (|good| good.with("code_verifier", &VERIFIER.replace('d', "e")), 400, "invalid_grant"),
        (|good| good.with("code_verifier", &VERIFIER.to_uppercase()), 400, "invalid_grant"),
        (|good| good.with("code_verifier", &format!("{VERIFIER}A")), 400, "invalid_grant"),
    ]),
    ("N-TK-07", "the `code_challenge` as verifier", &[
        (|good| good.with("code_verifier", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"), 400, "invalid_grant"),
    ]),
    ("N-TK-08", "a `code_verifier` that is too short or too long", &[
        (|good| good.with("code_verifier", &VERIFIER[..42]), 400, "invalid_grant"),
        (|good| good.with("code_verifier", &"x".repeat(129)), 400, "invalid_grant"),
        (|good| good.with("code_verifier", &"x".repeat(10_000)), 400, "invalid_grant"),
    ]),
    ("N-TK-09", "a `code_verifier` that is not plain ASCII", &[
        (|good| good.with("code_verifier", &VERIFIER.replace('d', "é")), 400, "invalid_grant"),
        (|good| good.with("code_verifier", &VERIFIER.replace('d', "\0")), 400, "invalid_grant"),
        (|good| good.with("code_verifier", &VERIFIER.replace('d', "+")), 400, "invalid_grant"),
        (|good| good.with("code_verifier", &format!("{VERIFIER} ")), 400, "invalid_grant"),
    ]),
    ("N-TK-12", "no client", &[
        (|good| good.without("client_id"), 401, "invalid_client"),
        (|good| good.without("client_id").without("client_secret"), 401, "invalid_client"),
        (|good| good.with("client_id", "nobody"), 401, "invalid_client"),
    ]),
    ("N-TK-15", "a client's name without its secret", &[
        (|good| good.without("client_secret"), 401, "invalid_client"),
        (|good| good.with("client_secret", ""), 401, "invalid_client"),
        (|good| good.with("client_secret", "mops_wrong"), 401, "invalid_client"),
    ]),
    ("N-TK-17", "another `redirect_uri`", &[
        (|good| good.with("redirect_uri", "https://evil.example/cb"), 400, "invalid_grant"),
        (|good| good.with("redirect_uri", "https://claude.ai/api/mcp/auth_callback/"), 400, "invalid_grant"),
        (|good| good.with("redirect_uri", "HTTPS://claude.ai/api/mcp/auth_callback"), 400, "invalid_grant"),
    ]),
    ("N-TK-18", "a `resource` outside the grant", &[
        (|good| good.and("resource", "https://evil.example/mcp"), 400, "invalid_target"),
        (|good| good.and("resource", "http://127.0.0.1/other"), 400, "invalid_target"),
        (|good| good.and("resource", "mcp"), 400, "invalid_target"),
    ]),
];
const UNSUPPORTED: &str = "unsupported_grant_type";

impl World {
    /// Redeeming with these fields is refused, and spends nothing.
    async fn refuses_redemption(&self, fields: &Parameters, status: u16, error: &'static str) {
        let request = self.http.form("/token", fields);
        self.refused(request, &OAuth(status, error)).await;
    }

    /// The twin: the code works all the same.
    async fn redeems(&self, client: &Client, code: &str) -> Tokens {
        let tokens = Tokens::of(&client.redeem(code).await.expect(200));
        self.serves(client, &tokens).await;
        tokens
    }
}

async fn changed(world: Arc<World>, changes: &'static [Change]) {
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let good = client.redemption(&code);
    for (change, status, error) in changes {
        world
            .refuses_redemption(&change(good.clone()), *status, error)
            .await;
    }
    world.redeems(&client, &code).await;
    // What may be left out, since the verifier proves more.
    let code = client.approved(&client.authorization()).await;
    let short = client.redemption(&code).without("redirect_uri");
    let answer = client.http.send(client.http.form("/token", &short)).await;
    let _ = answer.expect(200);
}

async fn other_types(world: Arc<World>) {
    const FORM: &str = "application/x-www-form-urlencoded";
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let good = client.redemption(&code);
    let json = json!({
        "grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER,
        "client_id": client.id, "client_secret": client.secret,
    })
    .to_string();
    let utf_16 = format!("{FORM}; charset=utf-16");
    let joined = format!("{FORM}, {FORM}");
    let in_two_encodings = format!("{FORM}; charset=utf-16, {FORM}");
    for (types, body) in [
        (&["application/json"][..], json.clone()),
        (&[FORM], json.clone()),
        (&[FORM, "application/json"], json),
        (&["multipart/form-data; boundary=x"], good.encoded()),
        (&["text/plain"], good.encoded()),
        (&[], good.encoded()),
        (&[&utf_16], good.encoded()),
        (&[&in_two_encodings], good.encoded()),
        (&["application/json, text/plain"], good.encoded()),
        (&[""], good.encoded()),
    ] {
        let mut request = world.http.request(Method::POST, "/token");
        for value in types {
            request = request.header(header::CONTENT_TYPE, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        world.refused(request, &OAuth(400, "invalid_request")).await;
    }
    let mut request = world.http.form("/token", &good);
    let utf_8 = "Application/X-WWW-Form-Urlencoded;charset=\"UTF-8\"";
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, utf_8.parse().unwrap());
    let _ = client.http.send(request).await.expect(200);
    // A list is as good as its members: the form that one of them says is read as that.
    for types in [&[FORM, FORM][..], &[FORM, "application/json"], &[&joined]] {
        let code = client.approved(&client.authorization()).await;
        let mut request = world.http.form("/token", &client.redemption(&code));
        let headers = request.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        for value in types {
            headers.append(header::CONTENT_TYPE, value.parse().unwrap());
        }
        let _ = client.http.send(request).await.expect(200);
    }
}

async fn in_query(world: Arc<World>) {
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let good = client.redemption(&code);
    let path = format!("/token?{}", good.encoded());
    let all = world.http.form(&path, &Parameters::default());
    world.refused(all, &OAuth(400, "invalid_request")).await;
    let path = format!("/token?code={code}");
    let rest = good.clone().without("code");
    let split = world.http.form(&path, &rest);
    world.refused(split, &OAuth(400, "invalid_request")).await;
    let get = format!("/token?{}", good.encoded());
    let answer = world.unchanged(world.http.get(&get)).await;
    assert_eq!(answer.status, 405);
    world.redeems(&client, &code).await;
}

async fn each_twice(world: Arc<World>) {
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let good = client.redemption(&code);
    let resource = format!("{}/mcp", world.issuer);
    let full = good.and("resource", &resource).and("scope", "mcp");
    let secret = client.secret.clone().unwrap();
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("code_verifier", VERIFIER),
        ("redirect_uri", &client.redirect_uri),
        ("client_id", &client.id),
        ("client_secret", &secret),
        ("scope", "mcp"),
    ] {
        for again in [value, "other"] {
            let twice = full.clone().and(name, again);
            world
                .refuses_redemption(&twice, 400, "invalid_request")
                .await;
        }
    }
    // The one that may be given twice (RFC 8707 §2) still means one resource.
    let two = full.clone().and("resource", "https://evil.example/mcp");
    world.refuses_redemption(&two, 400, "invalid_target").await;
    let answer = client.http.send(client.http.form("/token", &full)).await;
    world
        .serves(&client, &Tokens::of(&answer.expect(200)))
        .await;
}

async fn foreign_verifier(world: Arc<World>) {
    const VERIFIER: &str = "another-verifier-of-43-characters-or-more-0123456789";
    const CHALLENGE: &str = "Yfpib2Rya5xtSJXfzZkjVDkX53FWIgTFd4F1SDuRgXM";
    let client = world.client().await;
    let other = client.authorization().with("code_challenge", CHALLENGE);
    let code = client.approved(&client.authorization()).await;
    let others_code = client.approved(&other).await;
    let mixed = client.redemption(&code).with("code_verifier", VERIFIER);
    world.refuses_redemption(&mixed, 400, "invalid_grant").await;
    let mixed = client.redemption(&others_code);
    world.refuses_redemption(&mixed, 400, "invalid_grant").await;
    world.redeems(&client, &code).await;
    let right = client
        .redemption(&others_code)
        .with("code_verifier", VERIFIER);
    let answer = client.http.send(client.http.form("/token", &right)).await;
    let _ = answer.expect(200);
}

async fn foreign_code(world: Arc<World>) {
    let (client, thief) = (world.client().await, world.client().await);
    let public = world.client_at(&[&client.redirect_uri]).await;
    let code = client.approved(&client.authorization()).await;
    for thief in [&thief, &public] {
        let stolen = thief.redemption(&code);
        world
            .refuses_redemption(&stolen, 400, "invalid_grant")
            .await;
        let stolen = stolen.without("code_verifier").with("code_verifier", "x");
        world
            .refuses_redemption(&stolen, 400, "invalid_grant")
            .await;
    }
    world.redeems(&client, &code).await;
}

/// The form, with this `Authorization`, and without credentials in the body.
fn with_header(client: &Client, code: &str, authorization: &str) -> Request<Body> {
    let fields = client.redemption(code);
    let fields = fields.without("client_id").without("client_secret");
    let mut request = client.http.form("/token", &fields);
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
    request
}

fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    )
}

async fn two_clients(world: Arc<World>) {
    let (client, other) = (world.client().await, world.client().await);
    let code = client.approved(&client.authorization()).await;
    let credentials = |of: &Client| basic(&of.id, of.secret.as_deref().unwrap());
    for (header, body) in [(&client, &other), (&other, &client)] {
        let fields = client.redemption(&code).without("client_secret");
        let mut request = client
            .http
            .form("/token", &fields.with("client_id", &body.id));
        let value = credentials(header).parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        world.refused(request, &OAuth(400, "invalid_request")).await;
    }
    let mut request = with_header(&client, &code, &credentials(&client));
    let value = credentials(&other).parse().unwrap();
    request.headers_mut().append(header::AUTHORIZATION, value);
    let answer = world.unchanged(world.http.send(request)).await;
    assert!(matches!(answer.status.as_u16(), 400 | 401), "{answer:#?}");
    let right = with_header(&client, &code, &credentials(&client));
    let _ = client.http.send(right).await.expect(200);
}

async fn needless_secret(world: Arc<World>) {
    let client = world.client_at(&["https://client.example/cb"]).await;
    let code = client.approved(&client.authorization()).await;
    let guess = client.redemption(&code).and("client_secret", "mops_guess");
    world
        .refuses_redemption(&guess, 401, "invalid_client")
        .await;
    let header = with_header(&client, &code, &basic(&client.id, "mops_guess"));
    let refused = world
        .refusal_of(header, &OAuth(401, "invalid_client"))
        .await;
    assert!(refused.header("www-authenticate").starts_with("Basic "));
    world.redeems(&client, &code).await;
}

/// A secret may come either way, whichever was registered: some clients do not keep to theirs.
async fn other_authentication(world: Arc<World>) {
    let client = world.client().await;
    let secret = client.secret.clone().unwrap();
    let code = client.approved(&client.authorization()).await;
    let right = basic(&client.id, &secret);
    let mut both = client.http.form("/token", &client.redemption(&code));
    both.headers_mut()
        .insert(header::AUTHORIZATION, right.parse().unwrap());
    world.refused(both, &OAuth(400, "invalid_request")).await;
    for other in [
        format!("Bearer {secret}"),
        format!("Digest username=\"{}\", response=\"{secret}\"", client.id),
        format!("Negotiate {secret}"),
        "Basic".to_owned(),
        String::new(),
    ] {
        let request = with_header(&client, &code, &other);
        let refusal = OAuth(401, "invalid_client");
        let refused = world.refusal_of(request, &refusal).await;
        assert!(refused.header("www-authenticate").starts_with("Basic "));
    }
    let answer = client.http.send(with_header(&client, &code, &right)).await;
    world
        .serves(&client, &Tokens::of(&answer.expect(200)))
        .await;
}

async fn no_code(world: Arc<World>) {
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let page = client.opens_consent().await;
    let tokens = client.sign_in().await;
    let elsewhere = {
        let world = world.another("").await;
        let client = world.client().await;
        client.approved(&client.authorization()).await
    };
    for wrong in [
        &code[..code.len() - 1],
        &format!("{code}A"),
        &format!("{code}="),
        &format!(" {code}"),
        &code[5..],
        "mopc_",
        "x",
        &"x".repeat(50_000),
        &elsewhere,
        &page.transaction,
        page.cookie.split_once('=').unwrap().1,
        &tokens.access_token,
        &tokens.refresh_token,
        &tokens.refresh_token.replace("mopr_", "mopc_"),
        &tokens.access_token.replace("mopa_", "mopc_"),
    ] {
        let wrong = client.redemption(wrong);
        world.refuses_redemption(&wrong, 400, "invalid_grant").await;
    }
    let flipped = async {
        for index in 0..code.len() {
            let mut bytes = code.clone().into_bytes();
            bytes[index] ^= 1 << (index % 7);
            let wrong = client.redemption(&String::from_utf8(bytes).unwrap());
            let answer = world.http.send(world.http.form("/token", &wrong)).await;
            OAuth(400, "invalid_grant").check(&answer, &world.issuer);
        }
    };
    world.unchanged(flipped).await;
    world.redeems(&client, &code).await;

    let late = client.approved(&client.authorization()).await;
    world.age(&client, 5 * 60 - 30).await;
    let in_time = client.approved(&client.authorization()).await;
    world.age(&client, 30).await;
    world
        .refuses_redemption(&client.redemption(&late), 400, "invalid_grant")
        .await;
    world.redeems(&client, &in_time).await;
}

async fn half_code(world: Arc<World>) {
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let tokens = world.redeems(&client, &code).await;
    let other = client.approved(&client.authorization()).await;
    world.age(&client, 60).await;
    // Behind the name of the key, which both have.
    for length in [16, 32, 33, 46, code.len() - 2] {
        let mixed = format!("{}{}", &code[..length], &other[length..]);
        world
            .refuses_redemption(&client.redemption(&mixed), 400, "invalid_grant")
            .await;
    }
    world.serves(&client, &tokens).await;
    let _ = client.refresh(&tokens).await.expect(200);
    world.redeems(&client, &other).await;
}

async fn code_twice(world: Arc<World>) {
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let tokens = world.redeems(&client, &code).await;
    // As if it were within the two seconds in which the network may send a request twice.
    world.age(&client, -60).await;
    world
        .refuses_redemption(&client.redemption(&code), 400, "invalid_grant")
        .await;
    world.serves(&client, &tokens).await;

    // Later, only what is not valid in every way leaves the grant alone.
    world.age(&client, 65).await;
    let wrong = client
        .redemption(&code)
        .with("code_verifier", &"x".repeat(43));
    world.refuses_redemption(&wrong, 400, "invalid_grant").await;
    world.serves(&client, &tokens).await;
    let again = world.changing(&["grant/"], client.redeem(&code)).await;
    OAuth(400, "invalid_grant").check(&again, &world.issuer);
    let _ = client.call(&tokens).await.expect(401);
    let refresh = client.refreshment(&tokens.refresh_token);
    world
        .refused(
            world.http.form("/token", &refresh),
            &OAuth(400, "invalid_grant"),
        )
        .await;
    world.lets_in(&client, &client.authorization()).await;
}

async fn replayed_elsewhere(world: Arc<World>) {
    let (client, thief) = (world.client().await, world.client().await);
    let code = client.approved(&client.authorization()).await;
    let tokens = world.redeems(&client, &code).await;
    for _ in 0..2 {
        world
            .refuses_redemption(&thief.redemption(&code), 400, "invalid_grant")
            .await;
        world.age(&client, 60).await;
    }
    world.serves(&client, &tokens).await;
    let _ = client.refresh(&tokens).await.expect(200);
}

async fn odd_basic(world: Arc<World>) {
    let client = world.client().await;
    let secret = client.secret.clone().unwrap();
    let code = client.approved(&client.authorization()).await;
    let encode = |text: String| BASE64_STANDARD.encode(text);
    for odd in [
        "Basic !!!".to_owned(),
        format!(
            "Basic {}",
            encode(format!("{}:{secret}", client.id)).trim_end_matches('=')
        ) + "=x",
        format!("Basic {}", encode(format!("{}{secret}", client.id))),
        format!("Basic {}", encode(String::new())),
        format!("Basic {}", encode(":".to_owned())),
        format!("Basic {}", BASE64_STANDARD.encode(b"\xff\xfe:\xff")),
        basic(&format!("{}\0", client.id), &secret),
        basic(&client.id, &format!("{secret}\n")),
        basic(&client.id, "%zz"),
        basic(&client.id, &"x".repeat(10_000)),
        basic("", &secret),
    ] {
        let request = with_header(&client, &code, &odd);
        let refused = world
            .refusal_of(request, &OAuth(401, "invalid_client"))
            .await;
        assert!(refused.header("www-authenticate").starts_with("Basic "));
    }
    // More than a head may have is refused by the listener.
    let enormous = with_header(&client, &code, &basic(&client.id, &"x".repeat(100 * 1024)));
    let (parts, _) = enormous.into_parts();
    let mut head = "POST /token HTTP/1.1\r\n".to_owned();
    for (name, value) in &parts.headers {
        write!(head, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
    }
    let sent = async {
        let mut wire = Wire::open(&world.http).await;
        wire.send(format!("{head}\r\n")).await;
        wire.answer().await.unwrap()
    };
    let answer = world.unchanged(sent).await;
    assert_eq!(answer.status, 431);

    // The scheme's case is free, and both parts may be form-encoded (RFC 6749 §2.3.1).
    let escape = |text: &str| {
        text.bytes()
            .fold(String::new(), |all, byte| all + &format!("%{byte:02X}"))
    };
    for fine in [
        basic(&client.id, &secret).replace("Basic", "basic"),
        basic(&client.id, &secret).replace("Basic ", "BASIC  "),
        basic(&escape(&client.id), &escape(&secret)),
    ] {
        let code = client.approved(&client.authorization()).await;
        let _ = client
            .http
            .send(with_header(&client, &code, &fine))
            .await
            .expect(200);
    }
    world.redeems(&client, &code).await;
}

async fn endless_body(world: Arc<World>) {
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let good = client.redemption(&code).encoded();
    let head = format!(
        "POST /token HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-www-form-urlencoded\r\n",
        world.proxy.address
    );
    let too_large = OAuth(413, "invalid_request");
    let padding = "x".repeat(1024 * 1024);
    let length = good.len() + 3 + padding.len();
    world
        .refused_bytes(
            format!("{head}content-length: {length}\r\n\r\n{good}&x={padding}"),
            &too_large,
        )
        .await;
    // Never so much as begun.
    world
        .refused_bytes(
            format!("{head}content-length: {}\r\n\r\n", u64::MAX / 2),
            &too_large,
        )
        .await;
    let chunk = format!("{:x}\r\n{}\r\n", 4096, "x".repeat(4096));
    let chunks = format!("{:x}\r\n{good}&x=\r\n{}", good.len() + 3, chunk.repeat(20));
    world
        .refused_bytes(
            format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}"),
            &too_large,
        )
        .await;
    world.redeems(&client, &code).await;

    // Announced and never sent.
    let world = world.another("limits.body_timeout = \"1s\"").await;
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let good = client.redemption(&code).encoded();
    let (host, length) = (world.proxy.address, good.len());
    let abandoned = async {
        let mut wire = Wire::open(&world.http).await;
        wire.send(format!(
            "POST /token HTTP/1.1\r\nhost: {host}\r\nexpect: 100-continue\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
        if let Some(answer) = wire.answer().await {
            OAuth(400, "invalid_request").check(&answer, &world.issuer);
            assert!(wire.is_closed().await);
        }
    };
    world.unchanged(abandoned).await;
    world.redeems(&client, &code).await;
}

async fn answers(world: Arc<World>) {
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let good = client
        .redemption(&code)
        .and("resource", &format!("{}/mcp", world.issuer));
    let planted = "planted<script>\r\nplanted";
    for name in [
        "grant_type",
        "code",
        "code_verifier",
        "client_id",
        "client_secret",
        "redirect_uri",
        "resource",
    ] {
        let request = world.http.form("/token", &good.clone().with(name, planted));
        let answer = world.unchanged(world.http.send(request)).await;
        assert!(matches!(answer.status.as_u16(), 400 | 401), "{answer:#?}");
        is_plain(&answer);
    }
    for path in ["/token", "/token/", "/token/x"] {
        let request = world.http.request(Method::PUT, path);
        let answer = world
            .unchanged(world.http.send(request.body(Body::from(planted)).unwrap()))
            .await;
        assert!(matches!(answer.status.as_u16(), 404 | 405), "{answer:#?}");
        is_plain(&answer);
    }
    let answer = client.redeem(&code).await.expect(200);
    is_plain(&answer);
    let answer = answer.json();
    let mut members: Vec<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(|key| &**key)
        .collect();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            "access_token",
            "expires_in",
            "refresh_token",
            "scope",
            "token_type"
        ]
    );
}

#[track_caller]
fn is_plain(answer: &Answer) {
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    for told in [
        "planted", "<script", ".rs", "panicked", "SELECT", "sqlx", "mopc_",
    ] {
        assert!(!answer.text().contains(told), "{told}: {answer:#?}");
    }
    assert!(!answer.headers.contains_key("server"));
}

/// What a thief of a code would learn is whether it is one, which the error says anyway; nobody
/// guesses 128 bits and a MAC. So all that is shown is that neither takes longer to any extent
/// that matters: of each the quickest, since others may be using this machine.
async fn timing(world: Arc<World>) {
    const ROUNDS: usize = 40;
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let wrong = client
        .redemption(&code)
        .with("code_verifier", &"x".repeat(43));
    let unknown = client.redemption(&code.replace("mopc_", "mopc_A")[..code.len()]);
    let mut quickest = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (fields, quickest) in [&wrong, &unknown].into_iter().zip(&mut quickest) {
            let request = world.http.form("/token", fields);
            let begun = Instant::now();
            let answer = world.http.send(request).await;
            *quickest = begun.elapsed().min(*quickest);
            OAuth(400, "invalid_grant").check(&answer, &world.issuer);
        }
    }
    let [wrong, unknown] = quickest;
    assert!(
        wrong.abs_diff(unknown) < Duration::from_millis(50),
        "{quickest:?}"
    );
    world.redeems(&client, &code).await;
}

async fn store_fails(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    let code = client.approved(&client.authorization()).await;
    let old = client.sign_in().await;
    let attempts = async {
        let form = |fields| client.http.send(client.http.form("/token", &fields));
        tokio::join!(
            client.approve(&page, PASSPHRASE),
            form(client.redemption(&code)),
            form(client.refreshment(&old.refresh_token)),
        )
    };
    let attempts = Box::pin(world.without_store(attempts));
    let (approved, redeemed, refreshed) = world.unchanged(attempts).await;
    Page(503).check(&approved, &world.issuer);
    for answer in [&redeemed, &refreshed] {
        OAuth(503, "temporarily_unavailable").check(answer, &world.issuer);
    }
    for answer in [&approved, &redeemed, &refreshed] {
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    world.redeems(&client, &code).await;
    let refreshed = Tokens::of(&client.refresh(&old).await.expect(200));
    world.serves(&client, &refreshed).await;
    let redirect = client.approve(&page, PASSPHRASE).await.expect(303);
    world.redeems(&client, &Client::code(&redirect)).await;
}
