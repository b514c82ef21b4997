//! The authorization endpoint (AZ).

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, header};
use url::Url;

use super::{
    case::{Case, case},
    refusal::Refusal::{self, Page, ToClient, ToStranger},
    support::{
        PASSPHRASE,
        client::{Client, Consent, Http, Parameters, REDIRECT_URI},
        wire::Wire,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("N-AZ-01", "no `client_id`", no_client),
        case("N-AZ-02", "an unknown `client_id`", unknown_client),
        case(
            "N-AZ-03",
            "the `client_id` of a client that is gone",
            gone_client,
        ),
        case("N-AZ-04", "`client_id` twice", client_twice),
        case(
            "N-AZ-05",
            "`redirect_uri` twice, a good and an evil one",
            redirect_twice,
        ),
        case(
            "N-AZ-06",
            "no `redirect_uri` though two are registered",
            no_redirect,
        ),
        case(
            "N-AZ-07",
            "a `client_id` of 10 KiB, or with NUL, line breaks or broken escapes",
            odd_client,
        ),
        case(
            "N-AZ-08",
            "SQL, shell and protocol characters in every parameter",
            metacharacters,
        ),
        case("N-AZ-09", "HTML and script in every parameter", markup),
        case(
            "N-AZ-39",
            "a redirect URI with a query of its own, to have parameters twice or lost",
            own_query,
        ),
        case(
            "N-AZ-47",
            "a `scope` that is unknown, malformed, or enormous",
            odd_scope,
        ),
        case(
            "N-AZ-48",
            "a `state` that is enormous, or would break a header",
            odd_state,
        ),
        case(
            "N-AZ-50",
            "a request object, by value and by reference",
            request_object,
        ),
        case(
            "N-AZ-52",
            "POST as JSON, and POST with a query beside the body",
            odd_post,
        ),
        case(
            "N-AZ-53",
            "scripts of another origin reading the page",
            cross_origin,
        ),
        case(
            "N-AZ-54",
            "`prompt=none` and hints, to skip the person",
            no_prompt,
        ),
        case(
            "N-AZ-55",
            "consent pages opened and left by the thousand",
            abandoned_pages,
        ),
        case(
            "N-AZ-56",
            "an error that would send a browser on to whoever registered",
            open_redirector,
        ),
        case("N-AZ-57", "a URL of 64 KiB", long_url),
    ];
    cases.extend(REDIRECTS.iter().map(|(id, tried, registered, presented)| {
        case(id, tried, |world| {
            wrong_redirect(world, registered, presented)
        })
    }));
    cases.extend(PARAMETERS.iter().map(|(id, tried, name, wrong)| {
        case(id, tried, |world| wrong_parameter(world, name, wrong))
    }));
    cases
}

const SITE: &str = "https://client.example/cb";
const LOOPBACK: &str = "http://127.0.0.1/cb";
const LOCALHOST: &str = "http://localhost/cb";

/// Id, what is tried, what is registered, and what is asked for instead.
type Redirect = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

#[rustfmt::skip]
const REDIRECTS: &[Redirect] = &[
    ("N-AZ-10", "redirect to another host", SITE, &["https://evil.example/cb"]),
    ("N-AZ-11", "redirect to a subdomain", SITE, &["https://a.client.example/cb"]),
    ("N-AZ-12", "redirect to a host that begins like the registered one", SITE, &["https://client.example.evil.com/cb"]),
    ("N-AZ-13", "redirect to a host that ends like the registered one", SITE, &["https://evilclient.example/cb"]),
    ("N-AZ-14", "redirect to another port of a site", SITE, &["https://client.example:8443/cb", "https://client.example:443/cb", "http://client.example/cb"]),
    ("N-AZ-15", "redirect to a path below", SITE, &["https://client.example/cb/x"]),
    ("N-AZ-16", "redirect through `..`", SITE, &["https://client.example/cb/../evil", "https://client.example/x/../cb"]),
    ("N-AZ-17", "redirect through an encoded `..`", SITE, &["https://client.example/cb%2f..%2fevil", "https://client.example/cb/%2e%2e/evil"]),
    ("N-AZ-18", "redirect with a slash at the end", SITE, &["https://client.example/cb/"]),
    ("N-AZ-19", "redirect with a dot at the end of the host", SITE, &["https://client.example./cb"]),
    ("N-AZ-20", "redirect with the path in another case", SITE, &["https://client.example/CB"]),
    ("N-AZ-21", "redirect with host or scheme in another case", SITE, &["https://CLIENT.example/cb", "HTTPS://client.example/cb"]),
    ("N-AZ-22", "redirect with a letter percent-encoded", SITE, &["https://client.example/%63b", "https://client%2eexample/cb"]),
    ("N-AZ-23", "redirect with a query added", SITE, &["https://client.example/cb?x=1", "https://client.example/cb?"]),
    ("N-AZ-24", "redirect with a `code` planted in it", SITE, &["https://client.example/cb?code=evil"]),
    ("N-AZ-25", "redirect with a `state` planted in it", SITE, &["https://client.example/cb?state=evil", "https://client.example/cb&state=evil"]),
    ("N-AZ-26", "redirect with a fragment", SITE, &["https://client.example/cb#", "https://client.example/cb#x"]),
    ("N-AZ-27", "redirect with the host as user name", SITE, &["https://client.example@evil.example/cb", "https://client.example:x@evil.example/cb"]),
    ("N-AZ-28", "redirect with a backslash", SITE, &["https://client.example\\@evil.example/cb", "https:\\\\client.example\\cb", "https://client.example\\cb"]),
    ("N-AZ-29", "redirect with tabs, line breaks or blanks inside", SITE, &["https://client.example/c\tb", "https://client.example/cb\n", "https://client.example/cb\r\nx: y", " https://client.example/cb"]),
    ("N-AZ-30", "loopback redirect with https", LOOPBACK, &["https://127.0.0.1/cb", "https://127.0.0.1:4711/cb"]),
    ("N-AZ-31", "loopback redirect under another name of the computer", LOOPBACK, &["http://localhost/cb", "http://[::1]/cb"]),
    ("N-AZ-32", "loopback redirect in another spelling of the address", LOOPBACK, &["http://127.0.0.2/cb", "http://0.0.0.0/cb", "http://127.1/cb", "http://2130706433/cb", "http://0x7f000001/cb", "http://[::ffff:127.0.0.1]/cb"]),
    ("N-AZ-33", "loopback redirect to another path", LOOPBACK, &["http://127.0.0.1:4711/other", "http://127.0.0.1:4711/cb/", "http://127.0.0.1:4711/cb?x", "http://127.0.0.1:4711"]),
    ("N-AZ-34", "loopback redirect with a port that is none", LOOPBACK, &["http://127.0.0.1:0/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.1:/cb", "http://127.0.0.1:080/cb", "http://127.0.0.1:+80/cb"]),
    ("N-AZ-35", "loopback redirect with a user name", LOOPBACK, &["http://x@127.0.0.1/cb", "http://127.0.0.1:80@evil.example/cb", "http://x:y@127.0.0.1:80/cb"]),
    ("N-AZ-36", "a host that begins with localhost", LOCALHOST, &["http://localhost.evil.com/cb", "http://localhost:80.evil.com/cb", "http://localhostevil/cb"]),
    ("N-AZ-37", "redirect to a host that looks the same", SITE, &["https://сlient.example/cb", "https://xn--lient-yzf.example/cb", "https://client。example/cb", "https://ｃlient.example/cb"]),
    ("N-AZ-38", "redirect to a scheme that runs or reads something", SITE, &["javascript:alert(1)", "javascript://client.example/cb", "data:text/html,x", "file:///cb", "blob:https://client.example/cb", "intent://client.example/cb", "vbscript:x"]),
];

/// A parameter's wrong values (`None`: left out), each with the error it comes to.
type Wrong = &'static [(Option<&'static str>, &'static str)];

#[rustfmt::skip]
const PARAMETERS: &[(&str, &str, &str, Wrong)] = &[
    ("N-AZ-40", "any other `response_type`, or none", "response_type", &[
        (None, "invalid_request"), (Some("token"), UNSUPPORTED), (Some("code id_token"), UNSUPPORTED),
        (Some("CODE"), UNSUPPORTED), (Some("code "), UNSUPPORTED), (Some("none"), UNSUPPORTED),
    ]),
    ("N-AZ-41", "no `code_challenge`", "code_challenge", &[(None, "invalid_request"), (Some(""), "invalid_request")]),
    ("N-AZ-42", "no `code_challenge_method`, which would mean plain", "code_challenge_method", &[(None, "invalid_request")]),
    ("N-AZ-43", "`code_challenge_method=plain`", "code_challenge_method", &[(Some("plain"), "invalid_request")]),
    ("N-AZ-44", "a `code_challenge_method` that is nearly S256", "code_challenge_method", &[
        (Some("s256"), "invalid_request"), (Some("S512"), "invalid_request"),
        (Some("S256 "), "invalid_request"), (Some(""), "invalid_request"),
    ]),
    ("N-AZ-45", "a `code_challenge` that is not 43 characters of base64url", "code_challenge", &[
        (Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c"), "invalid_request"),
        (Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cMM"), "invalid_request"),
        (Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM="), "invalid_request"),
        (Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM"), "invalid_request"),
        (Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw/cM"), "invalid_request"),
        (Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cN"), "invalid_request"),
    ]),
    ("N-AZ-46", "a `resource` that is not served here", "resource", &[
        (Some("https://evil.example/mcp"), "invalid_target"), (Some("{issuer}/other"), "invalid_target"),
        (Some("{issuer}/mcp#x"), "invalid_target"), (Some("/mcp"), "invalid_target"),
        (Some("{issuer}.evil.example/mcp"), "invalid_target"), (Some("{issuer}/mcp/{3 KiB}"), "invalid_target"),
    ]),
    ("N-AZ-49", "another `response_mode`", "response_mode", &[
        (Some("fragment"), "invalid_request"), (Some("form_post"), "invalid_request"),
        (Some("web_message"), "invalid_request"), (Some("query.jwt"), "invalid_request"),
    ]),
];
const UNSUPPORTED: &str = "unsupported_response_type";

fn opening(http: &Http, authorization: &Parameters) -> Request<Body> {
    opening_with(http, &authorization.encoded())
}

fn opening_with(http: &Http, query: &str) -> Request<Body> {
    let request = http.request(Method::GET, &format!("/authorize?{query}"));
    request.body(Body::empty()).unwrap()
}

impl World {
    /// The authorization request is refused like this, and nothing comes of it.
    async fn refuses(&self, authorization: &Parameters, refusal: Refusal) {
        let request = opening(&self.http, authorization);
        let answer = self.refusal_of(request, &refusal).await;
        assert!(
            answer.body.len() < 32 * 1024,
            "a page of {} bytes",
            answer.body.len()
        );
    }
}

async fn wrong_redirect(
    world: Arc<World>,
    registered: &'static str,
    presented: &'static [&'static str],
) {
    let client = world.client_at(&[registered]).await;
    let good = client.authorization();
    for uri in presented {
        world
            .refuses(&good.clone().with("redirect_uri", uri), Page(400))
            .await;
    }
    world.lets_in(&client, &good).await;
    if registered.starts_with("http://") {
        let client = Client {
            redirect_uri: registered.replace("/cb", ":4711/cb"),
            ..client
        };
        world.lets_in(&client, &client.authorization()).await;
    }
}

async fn wrong_parameter(world: Arc<World>, name: &'static str, wrong: Wrong) {
    let client = world.client().await;
    let good = client.authorization();
    for (value, error) in wrong {
        let without = good.clone().without(name);
        let bad = match value {
            None => without,
            Some(value) => {
                let value = value.replace("{issuer}", &world.issuer);
                without.and(name, &value.replace("{3 KiB}", &"x".repeat(3 * 1024)))
            }
        };
        world.refuses(&bad, ToClient(error)).await;
    }
    let error = match name {
        "resource" => "invalid_target",
        _ => "invalid_request",
    };
    // Beside the right one.
    world
        .refuses(&good.clone().and(name, "x"), ToClient(error))
        .await;
    world.lets_in(&client, &good).await;
}

async fn no_client(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization();
    world
        .refuses(&good.clone().without("client_id"), Page(400))
        .await;
    world
        .refuses(&good.clone().with("client_id", ""), Page(400))
        .await;
    world.lets_in(&client, &good).await;
}

async fn unknown_client(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization();
    let mut near = client.id.clone();
    near.pop();
    for id in [
        "nobody",
        &near,
        &format!("{}x", client.id),
        &client.id.to_uppercase(),
    ] {
        world
            .refuses(&good.clone().with("client_id", id), Page(400))
            .await;
    }
    world.lets_in(&client, &good).await;
}

async fn gone_client(world: Arc<World>) {
    let (client, gone) = (world.client().await, world.client().await);
    world.delete(&format!("client/{}", gone.id)).await;
    let good = client.authorization();
    let of = async |id: &str| {
        let request = opening(&world.http, &good.clone().with("client_id", id));
        world.refusal_of(request, &Page(400)).await.text()
    };
    assert_eq!(of(&gone.id).await, of("nobody").await);
    world.lets_in(&client, &good).await;
}

async fn client_twice(world: Arc<World>) {
    let (client, other) = (world.client().await, world.client().await);
    let good = client.authorization();
    for id in [&client.id, &other.id, "nobody"] {
        world
            .refuses(&good.clone().and("client_id", id), Page(400))
            .await;
    }
    world.lets_in(&client, &good).await;
}

async fn redirect_twice(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization();
    let evil = "https://evil.example/cb";
    world
        .refuses(&good.clone().and("redirect_uri", evil), Page(400))
        .await;
    let evil_first = good
        .clone()
        .with("redirect_uri", evil)
        .and("redirect_uri", REDIRECT_URI);
    world.refuses(&evil_first, Page(400)).await;
    world
        .refuses(&good.clone().and("redirect_uri", REDIRECT_URI), Page(400))
        .await;
    world.lets_in(&client, &good).await;
}

async fn no_redirect(world: Arc<World>) {
    let two = world.client_at(&[SITE, LOOPBACK]).await;
    world
        .refuses(&two.authorization().without("redirect_uri"), Page(400))
        .await;
    world.lets_in(&two, &two.authorization()).await;
    let one = world.client_at(&[SITE]).await;
    world
        .lets_in(&one, &one.authorization().without("redirect_uri"))
        .await;
}

async fn odd_client(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization();
    let rest = good.clone().without("client_id").encoded();
    let (long, id) = ("x".repeat(10 * 1024), &client.id);
    for odd in [
        &*long,
        "%00",
        &format!("{id}%00"),
        &format!("{id}%0a"),
        "%zz",
        "%",
        "%ff%fe",
        "%f0%9f",
    ] {
        let request = opening_with(&world.http, &format!("client_id={odd}&{rest}"));
        world.refused(request, &Page(400)).await;
    }
    world.lets_in(&client, &good).await;
}

const INJECTIONS: [&str; 7] = [
    "' OR '1'='1' --",
    "x'; DROP TABLE mcp_oauth_proxy_records; --",
    "{\"$ne\":null}",
    "x\r\nFLUSHALL\r\n",
    "%' ESCAPE '\\",
    "client/../grant/*",
    "$(touch x) `id` ${jndi:ldap://127.0.0.1/}",
];

const MARKUP: [&str; 4] = [
    "\"><script>alert(1)</script>",
    "'><img src=x onerror=alert(1)>",
    "</style></title><svg/onload=alert(1)>",
    "javascript:alert(1)//{{7*7}}",
];

/// Tries each value in every parameter, and shows each answer to `look`.
async fn in_every_parameter(world: &World, values: &[&str], look: impl Fn(&str, &str)) {
    let client = world.client().await;
    let good = client.authorization();
    let http = &world.http;
    for value in values {
        for name in ["client_id", "redirect_uri"] {
            let request = opening(http, &good.clone().with(name, value));
            look(value, &world.refusal_of(request, &Page(400)).await.text());
        }
        for (name, error) in [
            ("response_type", UNSUPPORTED),
            ("code_challenge", "invalid_request"),
            ("code_challenge_method", "invalid_request"),
            ("resource", "invalid_target"),
            ("response_mode", "invalid_request"),
        ] {
            let request = opening(http, &good.clone().with(name, value));
            let answer = world.refusal_of(request, &ToClient(error)).await;
            look(value, &answer.text());
        }
        // These may say what they like, or are not read; a page is shown and nothing is kept.
        for name in ["state", "scope", "utm", value] {
            let request = opening(http, &good.clone().with(name, value));
            let answer = world.unchanged(http.send(request)).await;
            assert!(matches!(answer.status.as_u16(), 200 | 303), "{answer:#?}");
            look(value, &answer.text());
        }
    }
    world.lets_in(&client, &good).await;
}

async fn metacharacters(world: Arc<World>) {
    in_every_parameter(&world, &INJECTIONS, |_, _| ()).await;
}

async fn markup(world: Arc<World>) {
    let unescaped = |value: &str, page: &str| assert!(!page.contains(value), "{value}: {page}");
    in_every_parameter(&world, &MARKUP, unescaped).await;
}

async fn own_query(world: Arc<World>) {
    let client = world
        .client_at(&["https://client.example/cb?a=1&b=%20"])
        .await;
    let consent = client.opens_consent().await;
    let redirect = client.approve(&consent, PASSPHRASE).await.expect(303);
    let location = Url::parse(redirect.header("location")).unwrap();
    assert!(
        location.as_str().starts_with(&client.redirect_uri),
        "{location}"
    );
    let names: Vec<String> = location
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .collect();
    assert_eq!(names, ["a", "b", "code", "state", "iss"]);
    for planted in ["code", "state", "iss", "error"] {
        let metadata = serde_json::json!({ "redirect_uris": [format!("https://client.example/cb?{planted}=x")] });
        let request = world.http.request(Method::POST, "/register");
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(metadata.to_string())).unwrap();
        world
            .refused(request, &Refusal::OAuth(400, "invalid_redirect_uri"))
            .await;
    }
    world.lets_in(&client, &client.authorization()).await;
}

async fn odd_scope(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization();
    let (long, many) = ("x".repeat(10 * 1024), "scope ".repeat(1000));
    for scope in ["mcp\0", "\"mcp\"", "mcp\\", "mcp\n", "ｍcp", &long, &many] {
        world
            .refuses(
                &good.clone().with("scope", scope),
                ToClient("invalid_scope"),
            )
            .await;
    }
    // One that nobody knows is not granted, and keeps nobody out.
    let unknown = good.clone().with("scope", "admin root *");
    let consent = client.opens_consent_with(&unknown).await;
    let redirect = client.approve(&consent, PASSPHRASE).await.expect(303);
    let tokens = client.redeem(&Client::code(&redirect)).await.expect(200);
    assert_eq!(tokens.json()["scope"], "mcp");
    world.lets_in(&client, &good).await;
}

async fn odd_state(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization();
    world
        .refuses(
            &good.clone().with("state", &"x".repeat(20 * 1024)),
            Page(400),
        )
        .await;
    let odd = "a&code=evil#%0d%0a+ é\u{2028}\r\nset-cookie: x=y\r\n\r\n\t\"'<>\u{0}";
    for state in [&"x".repeat(2 * 1024), odd] {
        let consent = client
            .opens_consent_with(&good.clone().with("state", state))
            .await;
        let redirect = client.approve(&consent, PASSPHRASE).await.expect(303);
        let location = Url::parse(redirect.header("location")).unwrap();
        let echoed: Vec<_> = location
            .query_pairs()
            .filter(|(name, _)| name == "state")
            .collect();
        assert!(
            matches!(&echoed[..], [(_, value)] if value == state),
            "{location}"
        );
        let cookies: Vec<_> = redirect.headers.get_all("set-cookie").iter().collect();
        assert!(
            matches!(&cookies[..], [only] if !only.as_bytes().starts_with(b"x=")),
            "{cookies:?}"
        );
        let codes = location.query_pairs().filter(|(name, _)| name == "code");
        assert_eq!(codes.count(), 1);
    }
    world.lets_in(&client, &good).await;
}

async fn request_object(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization();
    let object = "eyJhbGciOiJub25lIn0.eyJyZWRpcmVjdF91cmkiOiJodHRwczovL2V2aWwuZXhhbXBsZSJ9.";
    world
        .refuses(
            &good.clone().and("request", object),
            ToClient("request_not_supported"),
        )
        .await;
    let elsewhere = format!("http://{}/request", world.decoy.address);
    for uri in [&*elsewhere, "urn:ietf:params:oauth:request_uri:x"] {
        let by_reference = good.clone().and("request_uri", uri);
        world
            .refuses(&by_reference, ToClient("request_uri_not_supported"))
            .await;
    }
    world.lets_in(&client, &good).await;
}

async fn odd_post(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization();
    let json = world.http.request(Method::POST, "/authorize");
    let json = json.header(header::CONTENT_TYPE, "application/json");
    let body = serde_json::json!({ "client_id": client.id, "response_type": "code" });
    world
        .refused(json.body(Body::from(body.to_string())).unwrap(), &Page(400))
        .await;
    for path in [
        "/authorize?state=other".to_owned(),
        format!("/authorize?client_id={}", client.id),
    ] {
        world
            .refused(world.http.form(&path, &good), &Page(400))
            .await;
    }
    // The same as a plain form shows the page.
    let posted = world
        .http
        .send(world.http.form("/authorize", &good))
        .await
        .expect(200);
    let consent = Consent::on(&posted);
    let _ = client.approve(&consent, PASSPHRASE).await.expect(303);
}

async fn cross_origin(world: Arc<World>) {
    let client = world.client().await;
    let path = format!("/authorize?{}", client.authorization().encoded());
    for method in [Method::OPTIONS, Method::GET] {
        for origin in ["https://evil.example", "null"] {
            let request = world.http.request(method.clone(), &path);
            let request = request.header(header::ORIGIN, origin);
            let request = request.header("access-control-request-method", "POST");
            let answer = world.http.send(request.body(Body::empty()).unwrap());
            let answer = world.unchanged(answer).await;
            let mut names = answer.headers.keys().map(header::HeaderName::as_str);
            assert!(
                !names.any(|name| name.starts_with("access-control-")),
                "{answer:#?}"
            );
        }
    }
    world.lets_in(&client, &client.authorization()).await;
}

async fn no_prompt(world: Arc<World>) {
    let client = world.client().await;
    // Also for somebody who approved before.
    world.lets_in(&client, &client.authorization()).await;
    let silent = client
        .authorization()
        .and("prompt", "none")
        .and("login_hint", "owner")
        .and("id_token_hint", "eyJhbGciOiJub25lIn0.e30.")
        .and("claims", "{\"userinfo\":{\"sub\":{\"essential\":true}}}")
        .and("max_age", "0");
    let shown = world
        .unchanged(world.http.send(opening(&world.http, &silent)))
        .await
        .expect(200);
    assert!(!shown.headers.contains_key(header::LOCATION));
    assert!(shown.text().contains("name=\"secret\""), "{shown:#?}");
    world.lets_in(&client, &silent).await;
}

/// The number does not matter, since nothing is kept; that nothing is kept does.
async fn abandoned_pages(world: Arc<World>) {
    const PAGES: usize = 1_000;
    // Of its own, since its memory is looked at.
    let world = world.another("").await;
    let client = world.client().await;
    let first = client.opens_consent().await;
    let open_and_leave = async |count| {
        // Not with the client's own connections, which remember every answer.
        let http = world.elsewhere();
        for _ in 0..count {
            let answer = http
                .open(opening(&http, &client.authorization()))
                .await
                .unwrap();
            assert_eq!(answer.status(), 200);
        }
    };
    open_and_leave(PAGES / 10).await;
    let before = world.proxy.resident_kib();
    world.unchanged(open_and_leave(PAGES)).await;
    let grown = world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    let redirect = client.approve(&first, PASSPHRASE).await.expect(303);
    let _ = client.redeem(&Client::code(&redirect)).await.expect(200);
}

/// What is wrong with a request whose redirect URI is right, and the error it comes to.
type Odd = (fn(Parameters) -> Parameters, &'static str);

#[rustfmt::skip]
const ODD: [Odd; 5] = [
    (|good| good.without("code_challenge"), "invalid_request"),
    (|good| good.with("response_type", "token"), UNSUPPORTED),
    (|good| good.with("scope", "\""), "invalid_scope"),
    (|good| good.with("resource", "https://evil.example/"), "invalid_target"),
    (|good| good.and("request", "x"), "request_not_supported"),
];

/// Anybody can register an address of their own, and send people there through a link that begins
/// with our name. So only clients that are known, or on this computer, get errors by themselves.
async fn open_redirector(world: Arc<World>) {
    for uri in [
        "https://evil.example/cb",
        "https://claude.ai.evil.example/api/mcp/auth_callback",
        "https://claude.ai/elsewhere?x=%22%3E%3Cscript%3E",
        "com.example.evil://cb",
    ] {
        let stranger = world.client_at(&[uri]).await;
        for (change, error) in ODD {
            let bad = change(stranger.authorization()).with("state", "\"><script>");
            let request = opening(&world.http, &bad);
            let answer = world.refusal_of(request, &ToStranger(error)).await;
            assert!(!answer.text().contains("<script"), "{}", answer.text());
            assert!(
                answer.text().contains(&format!("href=\"{uri}")),
                "{answer:#?}"
            );
        }
        world.lets_in(&stranger, &stranger.authorization()).await;
    }
    for uri in [REDIRECT_URI, LOOPBACK, LOCALHOST] {
        let known = world.client_at(&[uri]).await;
        for (change, error) in ODD {
            let bad = change(known.authorization());
            world.refuses(&bad, ToClient(error)).await;
        }
    }
    // Nor does what only a person can say.
    let stranger = world.client_at(&["https://evil.example/cb"]).await;
    let page = stranger.opens_consent().await;
    let denied = page.answer(&stranger.http, "", "deny");
    let denied = world.changing(&["code/"], stranger.http.send(denied)).await;
    ToClient("access_denied").check(&denied, &world.issuer);
}

async fn long_url(world: Arc<World>) {
    let client = world.client().await;
    let good = client.authorization().encoded();
    let attempt = async {
        let mut wire = Wire::open(&world.http).await;
        let (host, padding) = (world.proxy.address, "x".repeat(64 * 1024));
        wire.send(format!(
            "GET /authorize?{good}&x={padding} HTTP/1.1\r\nhost: {host}\r\n\r\n"
        ))
        .await;
        let answer = wire.answer().await.unwrap();
        assert!(matches!(answer.status.as_u16(), 414 | 431), "{answer:#?}");
        assert!(wire.is_closed().await);
    };
    world.unchanged(attempt).await;
    world.lets_in(&client, &client.authorization()).await;
}
