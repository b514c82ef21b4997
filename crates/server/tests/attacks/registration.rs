//! Dynamic registration (RG).

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    case::{Case, case},
    limits::TOO_MANY,
    refusal::Refusal::{self, OAuth, Page},
    support::{
        PASSPHRASE,
        client::{Client, Tokens},
        wire::Wire,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("N-RG-01", "a body that is not JSON", not_json),
        case("N-RG-03", "JSON 10,000 levels deep", deep),
        case("N-RG-04", "a body of 17 KiB", large),
        case("N-RG-07", "a body that is not UTF-8", not_utf8),
        case("N-RG-08", "numbers where strings belong", numbers),
        case(
            "N-RG-09",
            "`__proto__` and unknown members",
            unknown_members,
        ),
        case("N-RG-12", "eleven redirect URIs", eleven_redirects),
        case("N-RG-13", "a redirect URI of 2,049 bytes", long_redirect),
        case(
            "N-RG-27",
            "redirect URIs inside private networks, to have them fetched",
            private_redirects,
        ),
        case(
            "N-RG-32",
            "a `client_id` and a secret of one's own choice",
            chosen_credentials,
        ),
        case(
            "N-RG-35",
            "a `software_statement` that nobody signed",
            unsigned_statement,
        ),
        case(
            "N-RG-30",
            "grant and response types that there are not, or that do not go together",
            other_types,
        ),
        case(
            "N-RG-31",
            "a way to authenticate that there is not",
            other_methods,
        ),
        case("N-RG-36", "a `scope` wider than there is", wide_scope),
        case(
            "N-RG-37",
            "lifetimes and times of one's own choice",
            chosen_times,
        ),
        case(
            "N-RG-38",
            "a thousand registrations: from one address, one network, everywhere",
            by_the_thousand,
        ),
        case("N-RG-39", "filling the disk with registrations", fills_disk),
        case("N-RG-40", "registrations that nobody ever uses", never_used),
        case("N-RG-41", "registration where it is turned off", turned_off),
    ];
    cases.extend(
        REDIRECTS
            .iter()
            .map(|(id, tried, bad)| case(id, tried, |world| wrong_redirect(world, bad))),
    );
    cases.extend(
        METADATA.iter().map(|(id, tried, twin, bad)| {
            case(id, tried, |world| wrong_metadata(world, twin, bad))
        }),
    );
    cases.extend(
        WITHOUT_REDIRECT
            .iter()
            .map(|(id, tried, bad)| case(id, tried, |world| without_redirect(world, bad))),
    );
    cases
}

const SITE: &str = "https://client.example/cb";
/// What `GOOD` stands for in the bodies below.
const GOOD: &str = r#""redirect_uris":["https://client.example/cb"]"#;
/// A body with it that is fine, of a public client.
const FINE: &str = r#"{GOOD,"token_endpoint_auth_method":"none"}"#;

const INVALID_METADATA: Refusal = OAuth(400, "invalid_client_metadata");
const INVALID_REDIRECT: Refusal = OAuth(400, "invalid_redirect_uri");

/// Id, what is tried, and redirect URIs that must not be registered.
type Redirect = (&'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const REDIRECTS: &[Redirect] = &[
    ("N-RG-14", "a relative redirect URI", &["/cb", "cb", "//client.example/cb", "?x", "client.example/cb", ""]),
    ("N-RG-15", "a redirect URI with http to elsewhere", &["http://client.example/cb", "http://10.0.0.1/cb", "http://localhost.evil.example/cb", "http://127.0.0.2/cb", "http://0.0.0.0/cb", "http://[::]/cb", "http://127.1/cb", "http://2130706433/cb"]),
    ("N-RG-16", "a redirect URI with a fragment", &["https://client.example/cb#", "https://client.example/cb#x", "https://client.example#x", "http://127.0.0.1/cb#x"]),
    ("N-RG-17", "a redirect URI with a user name", &["https://u@client.example/cb", "https://u:p@client.example/cb", "https://@client.example/cb", "https://client.example@evil.example/cb", "http://u@127.0.0.1/cb"]),
    ("N-RG-18", "a redirect URI as a pattern", &["https://*.client.example/cb", "https://client.example/*", "https://*/cb", "*", "http://127.0.0.1:*/cb"]),
    ("N-RG-19", "a redirect URI with a backslash", &["https://client.example\\@evil.example/cb", "https:\\\\client.example\\cb", "https://client.example\\cb", "https://client.example/c\\b"]),
    ("N-RG-20", "`javascript:`", &["javascript:alert(1)", "javascript://client.example/%0aalert(1)"]),
    ("N-RG-21", "`javascript:` in other cases", &["JaVaScRiPt:alert(1)", "JAVASCRIPT://client.example/%0aalert(1)"]),
    ("N-RG-22", "`javascript:` with control characters inside", &["java\tscript:alert(1)", "java\nscript:alert(1)", "java\rscript://client.example/cb", "java\0script:alert(1)", "javascript\t://client.example/cb", "java%73cript:alert(1)"]),
    ("N-RG-23", "a redirect URI behind or before a blank", &[" javascript:alert(1)", "\tjavascript:alert(1)", "\u{1}javascript:alert(1)", " https://client.example/cb", "https://client.example/cb ", "\u{a0}https://client.example/cb"]),
    ("N-RG-24", "`data:`", &["data:text/html,<script>alert(1)</script>", "data:text/html;base64,PHNjcmlwdD4=", "data://client.example/cb", "DATA:,x"]),
    ("N-RG-25", "other schemes that run or read something", &["vbscript:x", "file:///etc/passwd", "file://client.example/cb", "about:blank", "blob:https://client.example/cb", "view-source:https://client.example/cb", "filesystem:https://client.example/cb", "intent://client.example/cb", "ms-msdt:/id%20PCWDiagnostic", "search-ms://query=x", "ms-settings:/x", "microsoft-edge:/x", "x-apple.systempreferences:/x", "shortcuts://run-shortcut", "web+x://cb", "chrome-extension://x/y", "itms-services://x", "ssh://client.example/cb", "mailto:/x", "tel:/1", "ws://client.example/cb"]),
    ("N-RG-26", "https with another number of slashes", &["https:evil", "https:/evil", "https:///evil", "https:evil.example/cb", "https:\\\\evil.example"]),
    ("N-RG-28", "a redirect URI with an odd host or port", &["https:///cb", "https://:443/cb", "https://?x", "https://", "https://client.example:99999/cb", "https://client.example:0/cb", "https://client.example:/cb", "https://client.example:-1/cb", "http://127.0.0.1:99999/cb", "http://[::1%25eth0]/cb", "https://[fe80::1%25eth0]/cb", "https://[fe80::1%eth0]/cb", "https://[::1/cb"]),
    ("N-RG-29", "a redirect URI whose host looks like another", &["https://bücher.example/cb", "https://сlient.example/cb", "https://client。example/cb", "https://ｃlient.example/cb", "https://b%C3%BCcher.example/cb", "https://client.ex\u{ad}ample/cb", "https://cl\u{200b}ient.example/cb", "https://xn--bücher-kva.example/cb"]),
];

/// Id, what is tried, a body that registers, and bodies that must not.
type Metadata = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

#[rustfmt::skip]
const METADATA: &[Metadata] = &[
    ("N-RG-02", "JSON that is no object", FINE, &["[{GOOD}]", "[]", "\"https://client.example/cb\"", "null", "4", "true"]),
    ("N-RG-05", "a member twice", FINE, &[
        "{GOOD,GOOD}",
        r#"{GOOD,"redirect_uris":["https://evil.example/cb"]}"#,
        r#"{"redirect_uris":["https://evil.example/cb"],GOOD}"#,
        r#"{GOOD,"redirect_\u0075ris":["https://evil.example/cb"]}"#,
        r#"{GOOD,"client_name":"Claude","client_name":"Evil"}"#,
        r#"{GOOD,"x":{"a":1,"a":2}}"#,
    ]),
    ("N-RG-06", "a byte order mark", FINE, &["\u{feff}{GOOD}", "\u{feff}\u{feff}{GOOD}"]),
    ("N-RG-33", "keys in two places",
        r#"{GOOD,"token_endpoint_auth_method":"none","jwks_uri":"https://client.example/jwks.json"}"#, &[
        r#"{GOOD,"jwks":{"keys":[]},"jwks_uri":"https://client.example/jwks.json"}"#,
        r#"{GOOD,"jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]},"jwks_uri":"https://client.example/jwks.json"}"#,
    ]),
    ("N-RG-34", "a private key where a public one belongs",
        r#"{GOOD,"token_endpoint_auth_method":"none","jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}}"#, &[
        r#"{GOOD,"jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"x"}]}}"#,
        r#"{GOOD,"jwks":{"keys":[{"kty":"RSA","n":"x","e":"AQAB","p":"x","q":"x"}]}}"#,
        r#"{GOOD,"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"x","y":"x","d":"x"}]}}"#,
        r#"{GOOD,"jwks":{"keys":[{"kty":"oct","k":"x"}]}}"#,
        r#"{GOOD,"jwks":{"keys":[{"kty":"unknown"},{"kty":"unknown","d":null}]}}"#,
    ]),
];

/// Id, what is tried, and bodies without a usable list of redirect URIs.
#[rustfmt::skip]
const WITHOUT_REDIRECT: &[Redirect] = &[
    ("N-RG-10", "no `redirect_uris`", &[
        "{}",
        r#"{"client_name":"Claude"}"#,
        r#"{"redirect_uri":"https://client.example/cb"}"#,
        r#"{"redirect_uris":null}"#,
        r#"{"redirect_uris":"https://client.example/cb"}"#,
        r#"{"redirect_uris":{"0":"https://client.example/cb"}}"#,
    ]),
    ("N-RG-11", "an empty list of redirect URIs", &[r#"{"redirect_uris":[]}"#, r#"{"redirect_uris":[""]}"#, r#"{"redirect_uris":[[]]}"#]),
];

fn registration(world: &World, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    let request = world.http.request(Method::POST, "/register");
    let request = request.header(header::CONTENT_TYPE, content_type);
    request.body(body.into()).unwrap()
}

async fn refuses(world: &World, body: impl Into<Body>, refusal: Refusal) {
    let request = registration(world, "application/json", body);
    world.refused(request, &refusal).await;
}

/// The twin: this one is registered, and nothing else happens.
async fn registers(world: &World, metadata: &Value) -> Client {
    let http = world.elsewhere();
    world
        .changing(&["client/"], Client::register_as(&http, metadata))
        .await
}

/// It is registered, and gets in.
async fn lets_in(world: &World, metadata: &Value) {
    let client = registers(world, metadata).await;
    world.lets_in(&client, &client.authorization()).await;
}

fn filled(body: &str) -> String {
    body.replace("GOOD", GOOD)
}

/// Metadata of a public client, with these members beside its redirect URI.
fn fine_with(members: &Value) -> Value {
    let mut metadata: Value = serde_json::from_str(&filled(FINE)).unwrap();
    let members = members.as_object().unwrap().clone();
    metadata.as_object_mut().unwrap().extend(members);
    metadata
}

async fn wrong_redirect(world: Arc<World>, bad: &'static [&'static str]) {
    for uri in bad {
        for list in [vec![uri], vec![&SITE, uri]] {
            let body = json!({ "redirect_uris": list }).to_string();
            refuses(&world, body, INVALID_REDIRECT).await;
        }
    }
    for good in [
        SITE,
        "http://127.0.0.1/cb",
        "https://xn--bcher-kva.example/cb",
    ] {
        lets_in(&world, &fine_with(&json!({ "redirect_uris": [good] }))).await;
    }
}

/// What is no list of names is refused. Of names that there are not, nobody gets what they stand for:
/// the client is given the code with PKCE, is told so, and no other way to a token works for it.
async fn other_types(world: Arc<World>) {
    for body in [
        r#"{GOOD,"grant_types":[["authorization_code"]]}"#,
        r#"{GOOD,"grant_types":"authorization_code"}"#,
        r#"{GOOD,"grant_types":4}"#,
        r#"{GOOD,"response_types":"code"}"#,
        r#"{GOOD,"response_types":[["code"]]}"#,
        r#"{GOOD,"response_types":{"code":true}}"#,
    ] {
        refuses(&world, filled(body), INVALID_METADATA).await;
    }
    for (grant_types, response_types) in [
        (json!(["password"]), json!(["code"])),
        (json!(["client_credentials"]), json!([])),
        (json!(["refresh_token"]), json!(["token"])),
        (json!([]), json!(["code id_token"])),
        (json!(["implicit"]), json!(["token", "none"])),
        (json!(["authorization_code"]), json!(["token"])),
    ] {
        let metadata = fine_with(&json!({
            "grant_types": grant_types, "response_types": response_types,
        }));
        let client = registers(&world, &metadata).await;
        let record = world.records().await;
        let (_, record) = &record[&format!("client/{}", client.id)];
        let record = String::from_utf8_lossy(record);
        assert!(
            !record.contains("password") && !record.contains("token id"),
            "{record}"
        );
        for other in ["password", "client_credentials", "implicit"] {
            let mut form = client.redemption("x").with("grant_type", other);
            form = form.and("username", "owner").and("password", PASSPHRASE);
            let request = world.http.form("/token", &form);
            let refusal = OAuth(400, "unsupported_grant_type");
            world.refused(request, &refusal).await;
        }
        for other in ["token", "id_token", "code token", "none"] {
            let asked = client.authorization().with("response_type", other);
            let path = format!("/authorize?{}", asked.encoded());
            let answer = world.unchanged(client.http.get(&path)).await;
            assert!(!answer.text().contains("<form"), "{answer:#?}");
            assert!(
                !format!("{answer:?}").contains("access_token"),
                "{answer:#?}"
            );
        }
        world.lets_in(&client, &client.authorization()).await;
    }
}

/// The client is told the method that it has, and nothing but that one lets it in.
async fn other_methods(world: Arc<World>) {
    for body in [
        r#"{GOOD,"token_endpoint_auth_method":["none"]}"#,
        r#"{GOOD,"token_endpoint_auth_method":true}"#,
        r#"{GOOD,"token_endpoint_auth_method":{}}"#,
    ] {
        refuses(&world, filled(body), INVALID_METADATA).await;
    }
    let key = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] });
    for method in [
        "private_key_jwt",
        "client_secret_jwt",
        "tls_client_auth",
        "self_signed_tls_client_auth",
        "",
    ] {
        let metadata = fine_with(&json!({ "token_endpoint_auth_method": method, "jwks": key }));
        let client = registers(&world, &metadata).await;
        assert!(client.secret.is_some(), "{method}");
        let code = client.approved(&client.authorization()).await;
        let good = client.redemption(&code);
        let without = good.clone().without("client_secret");
        let asserted = without
            .clone()
            .and(
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            )
            .and("client_assertion", "eyJhbGciOiJFZERTQSJ9.e30.AAAA");
        for bad in [without, asserted, good.with("client_secret", "")] {
            let request = world.http.form("/token", &bad);
            world.refused(request, &OAuth(401, "invalid_client")).await;
        }
        let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
        world.serves(&client, &tokens).await;
    }
    for public in ["None", "none "] {
        let metadata = fine_with(&json!({ "token_endpoint_auth_method": public }));
        let client = registers(&world, &metadata).await;
        assert_eq!(client.secret, None, "{public}");
        world.lets_in(&client, &client.authorization()).await;
    }
}

async fn wrong_metadata(world: Arc<World>, twin: &'static str, bad: &'static [&'static str]) {
    for body in bad {
        refuses(&world, filled(body), INVALID_METADATA).await;
    }
    lets_in(&world, &serde_json::from_str(&filled(twin)).unwrap()).await;
}

async fn without_redirect(world: Arc<World>, bad: &'static [&'static str]) {
    for body in bad {
        refuses(&world, *body, INVALID_REDIRECT).await;
    }
    lets_in(&world, &fine_with(&json!({}))).await;
}

async fn not_json(world: Arc<World>) {
    for body in [
        "",
        " ",
        "redirect_uris=https://client.example/cb",
        "<client/>",
        "{GOOD",
        "{GOOD}}",
        "{GOOD}{GOOD}",
        "{GOOD,}",
        "{GOOD/* x */}",
        "{'redirect_uris':['https://client.example/cb']}",
        r#"{GOOD,"x":NaN}"#,
    ] {
        refuses(&world, filled(body), INVALID_METADATA).await;
    }
    for content_type in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/jsonx",
        "",
    ] {
        let request = registration(&world, content_type, filled(FINE));
        world.refused(request, &INVALID_METADATA).await;
    }
    lets_in(&world, &fine_with(&json!({}))).await;
}

async fn deep(world: Arc<World>) {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for value in [
        nested(8),
        nested(5_000),
        "[".repeat(10_000),
        "{\"x\":".repeat(3_000),
    ] {
        let body = filled(&format!("{{GOOD,\"x\":{value}}}"));
        refuses(&world, body, INVALID_METADATA).await;
    }
    let closed = filled(&format!("{{GOOD,\"x\":{}}}", nested(10_000)));
    refuses(&world, closed, OAuth(413, "invalid_client_metadata")).await;
    let shallow: Value = serde_json::from_str(&nested(7)).unwrap();
    lets_in(&world, &fine_with(&json!({ "x": shallow }))).await;
}

async fn large(world: Arc<World>) {
    let too_large = OAuth(413, "invalid_client_metadata");
    let padding = "x".repeat(17 * 1024);
    let body = filled(&format!("{{GOOD,\"x\":\"{padding}\"}}"));
    refuses(&world, body.clone(), too_large).await;
    // Without saying so before.
    let head = format!(
        "POST /register HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        world.proxy.address
    );
    let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    world.refused_bytes(chunked, &too_large).await;
    lets_in(&world, &fine_with(&json!({ "x": "x".repeat(15 * 1024) }))).await;
}

async fn not_utf8(world: Arc<World>) {
    for odd in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",
    ] {
        let body = [b"{\"client_name\":\"", odd, b"\",", GOOD.as_bytes(), b"}"].concat();
        refuses(&world, body, INVALID_METADATA).await;
    }
    let half = r#"{GOOD,"client_name":"\ud800"}"#;
    refuses(&world, filled(half), INVALID_METADATA).await;
    let utf16: Vec<u8> = filled(FINE)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    refuses(&world, utf16, INVALID_METADATA).await;
    lets_in(&world, &fine_with(&json!({ "client_name": "Café ☕" }))).await;
}

async fn numbers(world: Arc<World>) {
    for member in [
        "client_name",
        "token_endpoint_auth_method",
        "grant_types",
        "response_types",
    ] {
        for value in ["4", "4e999", "[4]"] {
            let body = filled(&format!("{{GOOD,\"{member}\":{value}}}"));
            refuses(&world, body, INVALID_METADATA).await;
        }
    }
    for uris in ["4", "[4]", "[\"https://client.example/cb\",4]"] {
        let body = format!("{{\"redirect_uris\":{uris}}}");
        refuses(&world, body, INVALID_REDIRECT).await;
    }
    lets_in(&world, &fine_with(&json!({ "client_name": "4" }))).await;
}

/// They are left out, and none of the addresses in them is visited.
async fn unknown_members(world: Arc<World>) {
    let address = format!("http://{}/x", world.decoy.address);
    let unknown = json!({
        "__proto__": { "client_id": "admin", "is_admin": true },
        "constructor": { "prototype": { "client_id": "admin" } },
        "is_admin": true,
        "client_uri": address,
        "logo_uri": address,
        "tos_uri": address,
        "policy_uri": "javascript:alert(1)",
        "sector_identifier_uri": address,
        "initiate_login_uri": address,
        "request_uris": [address],
        "backchannel_logout_uri": address,
    });
    let client = registers(&world, &fine_with(&unknown)).await;
    let record = world.records().await;
    let (_, record) = &record[&format!("client/{}", client.id)];
    let record = String::from_utf8_lossy(record);
    for left_out in ["admin", "javascript", &address] {
        assert!(!record.contains(left_out), "{record}");
    }
    world.lets_in(&client, &client.authorization()).await;
    assert_eq!(world.decoy.hits(), 0);
}

async fn eleven_redirects(world: Arc<World>) {
    let uris: Vec<String> = (0..11).map(|n| format!("{SITE}/{n}")).collect();
    let body = json!({ "redirect_uris": uris }).to_string();
    refuses(&world, body, INVALID_REDIRECT).await;
    let same = [SITE; 11];
    let same = json!({ "redirect_uris": same }).to_string();
    refuses(&world, same, INVALID_REDIRECT).await;
    lets_in(&world, &fine_with(&json!({ "redirect_uris": uris[1..] }))).await;
}

async fn long_redirect(world: Arc<World>) {
    let uri = format!("{SITE}/{}", "x".repeat(2_048 - SITE.len() - 1));
    let body = json!({ "redirect_uris": [format!("{uri}x")] }).to_string();
    refuses(&world, body, INVALID_REDIRECT).await;
    lets_in(&world, &fine_with(&json!({ "redirect_uris": [uri] }))).await;
}

/// Browsers are sent there if the person says so; this program goes to none of them.
async fn private_redirects(world: Arc<World>) {
    for host in ["10.0.0.1", "192.168.1.1", "169.254.169.254", "[fd00::1]"] {
        let plain = json!({ "redirect_uris": [format!("http://{host}/cb")] });
        refuses(&world, plain.to_string(), INVALID_REDIRECT).await;
        let uri = format!("https://{host}/cb");
        lets_in(&world, &fine_with(&json!({ "redirect_uris": [uri] }))).await;
    }
    for scheme in ["https", "http"] {
        let uri = format!("{scheme}://{}/cb", world.decoy.address);
        lets_in(&world, &fine_with(&json!({ "redirect_uris": [uri] }))).await;
    }
    assert_eq!(world.decoy.hits(), 0);
}

/// RFC 7591 has them ignored rather than refused: the client gets others.
async fn chosen_credentials(world: Arc<World>) {
    let victim = world.client().await;
    let mut chosen = fine_with(&json!({
        "client_secret": "chosen-by-the-client",
        "token_endpoint_auth_method": "client_secret_post",
    }));
    for id in ["admin", "https://client.example/client", &victim.id] {
        chosen["client_id"] = json!(id);
        let before = world.records().await;
        let client = registers(&world, &chosen).await;
        assert_ne!(client.id, id);
        let kept = format!("client/{}", victim.id);
        assert_eq!(world.records().await[&kept], before[&kept]);

        let code = Client::code(&approved(&client).await);
        let with_chosen = client
            .redemption(&code)
            .with("client_secret", "chosen-by-the-client");
        let request = world.http.form("/token", &with_chosen);
        world.refused(request, &OAuth(401, "invalid_client")).await;
        let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
        world.serves(&client, &tokens).await;
    }
    let unknown = victim.authorization().with("client_id", "admin");
    let request = world
        .http
        .request(Method::GET, &format!("/authorize?{}", unknown.encoded()));
    world
        .refused(request.body(Body::empty()).unwrap(), &Page(400))
        .await;
}

async fn approved(client: &Client) -> super::support::client::Answer {
    let consent = client.opens_consent().await;
    client.approve(&consent, PASSPHRASE).await.expect(303)
}

async fn unsigned_statement(world: Arc<World>) {
    // {"alg":"none"} and {"client_name":"Owner","redirect_uris":["https://evil.example/cb"]}
    let unsigned = "eyJhbGciOiJub25lIn0.eyJjbGllbnRfbmFtZSI6Ik93bmVyIiwicmVkaXJlY3RfdXJpcyI6WyJodHRwczovL2V2aWwuZXhhbXBsZS9jYiJdfQ.";
    let alone = json!({ "software_statement": unsigned }).to_string();
    refuses(&world, alone, INVALID_REDIRECT).await;
    for statement in [unsigned, "x", ""] {
        let beside = json!({ "client_name": "Claude", "software_statement": statement });
        let client = registers(&world, &fine_with(&beside)).await;
        let evil = client
            .authorization()
            .with("redirect_uri", "https://evil.example/cb");
        let request = world
            .http
            .request(Method::GET, &format!("/authorize?{}", evil.encoded()));
        world
            .refused(request.body(Body::empty()).unwrap(), &Page(400))
            .await;
        let page = format!("/authorize?{}", client.authorization().encoded());
        let page = world.http.get(&page).await.expect(200).text();
        assert!(page.contains("Claude") && !page.contains("Owner"), "{page}");
        world.lets_in(&client, &client.authorization()).await;
    }
}

async fn wide_scope(world: Arc<World>) {
    for scope in [
        json!("mcp admin *"),
        json!("x".repeat(10 * 1024)),
        json!(["admin"]),
    ] {
        let client = registers(&world, &fine_with(&json!({ "scope": scope }))).await;
        let asked = client.authorization().with("scope", "mcp admin");
        let consent = client.opens_consent_with(&asked).await;
        let redirect = client.approve(&consent, PASSPHRASE).await.expect(303);
        let answer = client.redeem(&Client::code(&redirect)).await.expect(200);
        assert_eq!(answer.json()["scope"], "mcp");
        world.serves(&client, &Tokens::of(&answer)).await;
    }
}

async fn chosen_times(world: Arc<World>) {
    let chosen = json!({
        "token_endpoint_auth_method": "client_secret_post",
        "iat": 1,
        "exp": 4_000_000_000_u32,
        "client_id_issued_at": 1,
        "client_secret_expires_at": 4_000_000_000_u32,
        "registered_at": 1,
        "expires_at": 4_000_000_000_u32,
        "access_token_lifetime": 4_000_000_000_u32,
        "refresh_token_lifetime": 4_000_000_000_u32,
        "default_max_age": 4_000_000_000_u32,
    });
    let usual = world.client().await;
    let client = registers(&world, &fine_with(&chosen)).await;
    let records = world.records().await;
    let times = |client: &Client| {
        let (_, record) = &records[&format!("client/{}", client.id)];
        let record: Value = serde_json::from_slice(record).unwrap();
        ["registered_at", "expires_at"].map(|time| record[time].as_i64().unwrap())
    };
    for (chosen, usual) in times(&client).into_iter().zip(times(&usual)) {
        assert!((chosen - usual).abs() < 600, "{chosen} instead of {usual}");
    }
    let lifetime = async |client: &Client| {
        let code = Client::code(&approved(client).await);
        let answer = client.redeem(&code).await.expect(200);
        world.serves(client, &Tokens::of(&answer)).await;
        answer.json()["expires_in"].clone()
    };
    assert_eq!(lifetime(&client).await, lifetime(&usual).await);
}

async fn turned_off(world: Arc<World>) {
    let document = "/.well-known/oauth-authorization-server";
    let advertised = world.http.get(document).await.expect(200).json();
    assert_eq!(
        advertised["registration_endpoint"],
        format!("{}/register", world.issuer)
    );
    let off = world.another("clients.registration = false").await;
    let advertised = off.http.get(document).await.expect(200).json();
    assert_eq!(advertised.get("registration_endpoint"), None);
    for body in [&*filled(FINE), "", "[]"] {
        refuses(&off, body.to_owned(), OAuth(403, "access_denied")).await;
    }
    lets_in(&world, &fine_with(&json!({}))).await;
}

/// The address that a registration comes from, by its number.
type FromWhere = fn(u16) -> IpAddr;

/// A thousand registrations right one after the other, from where a trusted proxy says they come
/// from; how many are taken.
async fn a_thousand_from(world: &World, address: FromWhere) -> u32 {
    const BATCH: usize = 50;
    let body = filled(FINE);
    let registration = |number| {
        format!(
            "POST /register HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nx-forwarded-for: {}\r\n\r\n{body}",
            world.proxy.address,
            body.len(),
            address(number),
        )
    };
    let all: Vec<String> = (0..1_000).map(registration).collect();
    let mut wire = Wire::open(&world.http).await;
    let mut taken = 0;
    for batch in all.chunks(BATCH) {
        for answer in wire.pipelined(batch).await {
            if answer.status == 201 {
                taken += 1;
            } else {
                OAuth(429, TOO_MANY).check(&answer, &world.issuer);
                assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
            }
        }
    }
    taken
}

async fn by_the_thousand(world: Arc<World>) {
    world.is_by_default("registrations_per_address", "300/h");
    world.is_by_default("registrations", "600/m");
    // Of all together so slow that the minutes of this case make no difference.
    let lines = "trusted_proxies.ranges = [\"127.0.0.1\"]\n\
                 limits.registrations_per_address = \"300/h\"\n\
                 limits.registrations = \"700/d\"";
    let world = world.another(lines).await;
    let kept = async || {
        let records = world.records().await;
        let clients = records.keys().filter(|key| key.starts_with("client/"));
        u32::try_from(clients.count()).unwrap()
    };
    let mut all = 0;
    let from_where: [(FromWhere, u32); 3] = [
        (|_| [192, 0, 2, 1].into(), 300),
        (|host| [0x2001, 0xdb8, 0, 0, host, 1, 1, 1].into(), 300),
        (|host| [0x2001, 0xdb8, 1, host, 0, 0, 0, 1].into(), 100),
    ];
    for (address, expected) in from_where {
        let taken = world
            .changing(&["client/"], a_thousand_from(&world, address))
            .await;
        // Every twelve seconds there is another.
        let more = taken.checked_sub(expected);
        assert!(more.is_some_and(|more| more < 10), "{taken} of {expected}");
        all += taken;
        assert_eq!(kept().await, all);
    }
    // Who is there already is not kept out.
    let world = world.another("limits.registrations = \"1/d\"").await;
    let client = world.client().await;
    let refused = registration(&world, "application/json", filled(FINE));
    world.limits(&world.http, refused).await;
    world.lets_in(&client, &client.authorization()).await;
}

async fn fills_disk(world: Arc<World>) {
    world.is_by_default("clients", "100000");
    world.is_by_default("registration_body", "16KiB");
    let mut world = world.another("limits.clients = 100").await;
    let used = world.client().await;
    let tokens = used.sign_in().await;
    let mut unused = Vec::new();
    for _ in 0..120 {
        unused.push(world.client().await);
    }
    // One record is no larger than what it came in.
    let uris: Vec<String> = (0..7)
        .map(|n| format!("{SITE}/{n}{}", "x".repeat(2_000)))
        .collect();
    let large = json!({ "redirect_uris": uris, "client_name": "\u{10ffff}".repeat(200) });
    let large = registers(&world, &large).await;
    let (_, record) = &world.records().await[&format!("client/{}", large.id)];
    assert!(record.len() <= 16 * 1024, "{} bytes", record.len());

    // Room is made every five minutes, and at a start.
    world.restart_after(0).await;
    let removed = "unused_clients_removed_total";
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.metric(removed).await < 22 {
        assert!(Instant::now() < deadline, "no room is made");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.metric(removed).await, 22);
    let records = world.records().await;
    let is_kept = |client: &Client| records.contains_key(&format!("client/{}", client.id));
    let clients = records.keys().filter(|key| key.starts_with("client/"));
    assert_eq!(clients.count(), 100);
    assert!(is_kept(&used));
    let refreshed = Tokens::of(&used.refresh(&tokens).await.expect(200));
    world.serves(&used, &refreshed).await;
    let (kept, gone): (Vec<_>, Vec<_>) = unused.iter().partition(|client| is_kept(client));
    is_unknown(&world, gone[0]).await;
    world.lets_in(kept[0], &kept[0].authorization()).await;
}

/// To a person, and to a program.
async fn is_unknown(world: &World, client: &Client) {
    let path = format!("/authorize?{}", client.authorization().encoded());
    let opening = world.http.request(Method::GET, &path);
    world
        .refused(opening.body(Body::empty()).unwrap(), &Page(400))
        .await;
    let redemption = world.http.form("/token", &client.redemption("x"));
    world
        .refused(redemption, &OAuth(401, "invalid_client"))
        .await;
}

async fn never_used(world: Arc<World>) {
    const HOUR: i64 = 60 * 60;
    let mut world = world.another("").await;
    let (used, unused, shown) = (
        world.client().await,
        world.client().await,
        world.client().await,
    );
    let tokens = used.sign_in().await;
    let _ = shown.opens_consent().await;
    world.restart_after(23 * HOUR).await;
    let page = unused.opens_consent().await;
    world.restart_after(2 * HOUR).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    for client in [&unused, &shown] {
        let key = format!("client/{}", client.id);
        while world.records().await.contains_key(&key) {
            assert!(Instant::now() < deadline, "it is not removed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        is_unknown(&world, client).await;
    }
    // Also for the page that was opened in time.
    let late = page.answer(&unused.http, PASSPHRASE, "approve");
    world.refused(late, &Page(400)).await;
    // One that was approved stays as long as its grant.
    let refreshed = Tokens::of(&used.refresh(&tokens).await.expect(200));
    world.serves(&used, &refreshed).await;
    world.lets_in(&used, &used.authorization()).await;
}
