//! The consent page and its form (CN).

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use url::Url;

use super::{
    case::{Case, case},
    guessing::{self, WRONG},
    refusal::Refusal::{OAuth, Page, ToClient},
    support::{
        PASSPHRASE,
        client::{Answer, Client, Consent, Parameters, Tokens},
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "N-CN-05",
            "the cookie under a name that other hosts could set",
            unprefixed_cookie,
        ),
        case(
            "N-CN-07",
            "wrong passphrases, near and far",
            wrong_passphrase,
        ),
        case(
            "N-CN-08",
            "a passphrase that is empty, enormous, has NUL, or is composed otherwise",
            odd_passphrase,
        ),
        case(
            "N-CN-12",
            "fields for what the page does not ask",
            planted_fields,
        ),
        case("N-CN-13", "using what was denied", denied),
        case(
            "N-CN-14",
            "the passphrase in the URL of the form",
            passphrase_in_url,
        ),
        case("N-CN-15", "the page in a frame", framed),
        case(
            "N-CN-16",
            "the form sent by a page of another site",
            other_site,
        ),
        case(
            "N-CN-17",
            "a client name that is markup, hides or reorders text, or has no end",
            odd_name,
        ),
        case(
            "N-CN-18",
            "a known client's name with an unknown return address",
            borrowed_name,
        ),
        case("N-CN-19", "a `logo_uri` that watches who approves", logo),
        case("N-CN-20", "the older of two pages answered", older_page),
        case(
            "N-CN-21",
            "approval sent again, and at the same time",
            approved_twice,
        ),
        case(
            "N-CN-22",
            "approval after denial, denial after approval",
            changed_mind,
        ),
        case(
            "N-CN-23",
            "back and again after success",
            back_after_success,
        ),
        case("N-CN-24", "two pages in one browser", two_tabs),
        case(
            "N-CN-25",
            "a page opened in one browser and approved in another",
            two_browsers,
        ),
        case(
            "N-CN-26",
            "a cookie that was planted before",
            planted_cookie,
        ),
        case(
            "N-CN-27",
            "having the browser send the passphrase on to the client",
            sent_on,
        ),
        case(
            "N-CN-28",
            "an approval that leads anywhere but to the redirect URI",
            way_back,
        ),
        case(
            "N-CN-29",
            "a page without a header that protects it",
            page_headers,
        ),
        case(
            "N-CN-30",
            "approval of a client that is gone or has moved meanwhile",
            gone_meanwhile,
        ),
    ];
    cases.extend(
        FORGED
            .iter()
            .map(|(id, tried, forgeries)| case(id, tried, |world| forged_form(world, forgeries))),
    );
    cases.extend(guessing::cases());
    cases
}

/// A form and a cookie, made of two pages of one client: the one that is attacked, and another's.
type Forgery = fn(&Consent, &Consent) -> (Parameters, Option<String>);

#[rustfmt::skip]
const FORGED: &[(&str, &str, &[Forgery])] = &[
    ("N-CN-01", "the form without its transaction", &[
        |page, _| (page.fields(PASSPHRASE, "approve").without("transaction"), Some(page.cookie.clone())),
        |page, _| (page.fields(PASSPHRASE, "approve").with("transaction", ""), Some(page.cookie.clone())),
        |page, _| (page.fields(PASSPHRASE, "approve").with("transaction", short(page)), Some(page.cookie.clone())),
        |page, _| (page.fields(PASSPHRASE, "approve").with("transaction", "mopc_x.mopc_x"), Some(page.cookie.clone())),
    ]),
    ("N-CN-02", "the form with another page's transaction", &[
        |page, other| (other.fields(PASSPHRASE, "approve"), Some(page.cookie.clone())),
        |page, other| {
            let mixed = format!("{}.{}", short(page), sealed(other));
            (page.fields(PASSPHRASE, "approve").with("transaction", &mixed), Some(page.cookie.clone()))
        },
    ]),
    ("N-CN-03", "the form without its cookie", &[
        |page, _| (page.fields(PASSPHRASE, "approve"), None),
        |page, _| (page.fields(PASSPHRASE, "approve"), Some(format!("{}=", name(page)))),
        |page, _| (page.fields(PASSPHRASE, "approve"), Some("theme=dark; session=1".to_owned())),
    ]),
    ("N-CN-04", "the form with the cookie of another browser", &[
        |page, other| (page.fields(PASSPHRASE, "approve"), Some(other.cookie.clone())),
        |page, other| (page.fields(PASSPHRASE, "approve"), Some(format!("{}={}", name(page), value(other)))),
        |page, other| (page.fields(PASSPHRASE, "approve"), Some(format!("{}={}; {}", name(page), value(other), page.cookie))),
        |page, other| (page.fields(PASSPHRASE, "approve"), Some(format!("{}; {}={}", page.cookie, name(page), value(other)))),
    ]),
    ("N-CN-06", "the form with its cookie or transaction changed or cut", &[
        |page, _| (page.fields(PASSPHRASE, "approve"), Some(page.cookie[..page.cookie.len() - 1].to_owned())),
        |page, _| (page.fields(PASSPHRASE, "approve"), Some(format!("{}A", page.cookie))),
        |page, _| (page.fields(PASSPHRASE, "approve"), Some(page.cookie.to_uppercase())),
        |page, _| (page.fields(PASSPHRASE, "approve"), Some(format!("{}=\"{}\"", name(page), value(page)))),
        |page, _| {
            let cut = &page.transaction[..page.transaction.len() - 1];
            (page.fields(PASSPHRASE, "approve").with("transaction", cut), Some(page.cookie.clone()))
        },
        |page, _| {
            let changed = format!("{}.A{}", short(page), &sealed(page)[1..]);
            let changed = if changed == page.transaction { changed.replace(".A", ".B") } else { changed };
            (page.fields(PASSPHRASE, "approve").with("transaction", &changed), Some(page.cookie.clone()))
        },
    ]),
];

fn short(page: &Consent) -> &str {
    page.transaction.split_once('.').unwrap().0
}

fn sealed(page: &Consent) -> &str {
    page.transaction.split_once('.').unwrap().1
}

fn name(page: &Consent) -> &str {
    page.cookie.split_once('=').unwrap().0
}

fn value(page: &Consent) -> &str {
    page.cookie.split_once('=').unwrap().1
}

impl Client {
    /// This form, from a browser with this cookie.
    fn form(&self, fields: &Parameters, cookie: Option<&str>) -> Request<Body> {
        let mut request = self.http.form("/consent", fields);
        if let Some(cookie) = cookie {
            request
                .headers_mut()
                .insert(header::COOKIE, cookie.parse().unwrap());
        }
        request
    }

    fn approval(&self, page: &Consent) -> Request<Body> {
        page.answer(&self.http, PASSPHRASE, "approve")
    }
}

impl World {
    /// The twin: this page still leads to tokens that work.
    async fn is_approved(&self, client: &Client, page: &Consent) -> Tokens {
        let redirect = client.approve(page, PASSPHRASE).await.expect(303);
        let tokens = client.redeem(&Client::code(&redirect)).await.expect(200);
        let tokens = Tokens::of(&tokens);
        self.serves(client, &tokens).await;
        tokens
    }
}

async fn forged_form(world: Arc<World>, forgeries: &'static [Forgery]) {
    let client = world.client().await;
    let (page, other) = (client.opens_consent().await, client.opens_consent().await);
    for forgery in forgeries {
        let (fields, cookie) = forgery(&page, &other);
        world
            .refused(client.form(&fields, cookie.as_deref()), &Page(403))
            .await;
    }
    world.is_approved(&client, &page).await;
    world.is_approved(&client, &other).await;
}

async fn unprefixed_cookie(world: Arc<World>) {
    const PUBLIC: &str = "https://mcp.example.com";
    let world = world.another(&format!("public_url = \"{PUBLIC}\"")).await;
    let client = world.client().await;
    let authorization = client
        .authorization()
        .with("resource", &format!("{PUBLIC}/mcp"));
    let path = format!("/authorize?{}", authorization.encoded());
    let shown = client.http.get(&path).await.expect(200);
    let mut attributes: Vec<&str> = shown.header("set-cookie").split("; ").skip(1).collect();
    attributes.sort_unstable();
    assert_eq!(
        attributes,
        [
            "HttpOnly",
            "Max-Age=3600",
            "Path=/",
            "SameSite=Lax",
            "Secure"
        ]
    );
    let page = Consent::on(&shown);
    let plain = page.cookie.strip_prefix("__Host-").unwrap();
    for cookie in [
        plain,
        &format!("__Secure-{plain}"),
        &format!("__host-{plain}"),
    ] {
        let form = client.form(&page.fields(PASSPHRASE, "approve"), Some(cookie));
        world.refused(form, &Page(403)).await;
    }
    let redirect = client.approve(&page, PASSPHRASE).await.expect(303);
    let _ = client.redeem(&Client::code(&redirect)).await.expect(200);
}

async fn wrong_passphrase(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    let (last, first) = (PASSPHRASE.len() - 1, &PASSPHRASE[1..]);
    let mut seen: Vec<String> = Vec::new();
    for wrong in [
        &PASSPHRASE[..last],
        &PASSPHRASE.to_uppercase(),
        first,
        "no idea",
    ] {
        // Each from a place of its own, so that all have as many attempts left.
        let http = world.elsewhere();
        let form = page.answer(&http, wrong, "approve");
        let answer = world.refusal_from(&http, form, &Page(401)).await;
        assert!(!answer.text().contains(wrong), "{}", answer.text());
        // The same page again, to go on with.
        assert!(answer.text().contains(&page.transaction));
        seen.push(answer.text());
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "near misses are told from others");
    world.is_approved(&client, &page).await;
}

async fn odd_passphrase(world: Arc<World>) {
    let mut world = world.another("").await;
    world.proxy.stop().await;
    world.proxy.set("PASSPHRASE", "d\u{e9}j\u{e0} vu of horses");
    world.proxy.start().await;
    let client = world.client().await;
    let page = client.opens_consent().await;
    let enormous = "x".repeat(1024 * 1024);
    // Compared byte by byte: browsers send composed letters, as configuration files have them.
    let decomposed = "de\u{301}ja\u{300} vu of horses";
    for (odd, status) in [
        ("", 401),
        (decomposed, 401),
        ("d\u{e9}j\u{e0} vu of horses\0", 401),
        (" d\u{e9}j\u{e0} vu of horses", 401),
        (&enormous, 413),
    ] {
        let http = world.elsewhere();
        let form = page.answer(&http, odd, "approve");
        let _ = world.refusal_from(&http, form, &Page(status)).await;
    }
    let twice = page
        .fields("x", "approve")
        .and("secret", "d\u{e9}j\u{e0} vu of horses");
    world
        .refused(client.form(&twice, Some(&page.cookie)), &Page(400))
        .await;
    let right = client.approve(&page, "d\u{e9}j\u{e0} vu of horses").await;
    let _ = client
        .redeem(&Client::code(&right.expect(303)))
        .await
        .expect(200);
}

async fn planted_fields(world: Arc<World>) {
    let (client, evil) = (
        world.client().await,
        world.client_at(&["https://evil.example/cb"]).await,
    );
    let page = client.opens_consent().await;
    let mut fields = page.fields(PASSPHRASE, "approve");
    for (name, value) in [
        ("client_id", &*evil.id),
        ("redirect_uri", &evil.redirect_uri),
        ("scope", "admin"),
        ("resource", "https://evil.example/mcp"),
        (
            "code_challenge",
            "Yfpib2Rya5xtSJXfzZkjVDkX53FWIgTFd4F1SDuRgXM",
        ),
        ("state", "evil"),
        ("upstream", "evil"),
        ("subject", "admin"),
    ] {
        fields = fields.and(name, value);
    }
    let form = client.form(&fields, Some(&page.cookie));
    let redirect = client.http.send(form).await.expect(303);
    let location = Url::parse(redirect.header("location")).unwrap();
    assert!(location.as_str().starts_with(&client.redirect_uri));
    assert!(
        location
            .query_pairs()
            .any(|pair| pair == ("state".into(), "xyz".into()))
    );
    let code = Client::code(&redirect);
    world
        .refused(
            evil.http.form("/token", &evil.redemption(&code)),
            &OAuth(400, "invalid_grant"),
        )
        .await;
    let tokens = client.redeem(&code).await.expect(200);
    assert_eq!(tokens.json()["scope"], "mcp");
    world.serves(&client, &Tokens::of(&tokens)).await;
}

async fn denied(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    // No passphrase is needed to say no.
    let denying = client.http.send(page.answer(&client.http, "", "deny"));
    let answer = world.changing(&["code/"], denying).await;
    ToClient("access_denied").check(&answer, &world.issuer);
    let location = Url::parse(answer.header("location")).unwrap();
    assert!(
        location
            .query_pairs()
            .any(|pair| pair == ("state".into(), "xyz".into()))
    );
    // Neither denied nor approved.
    for decision in ["", "APPROVE", "yes"] {
        let odd = page.answer(&client.http, PASSPHRASE, decision);
        world.refused(odd, &Page(400)).await;
    }
    world
        .is_approved(&client, &client.opens_consent().await)
        .await;
}

async fn passphrase_in_url(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    let fields = page.fields(PASSPHRASE, "approve");
    let all = format!("/consent?{}", fields.encoded());
    let secret = Parameters::of(&[("secret", PASSPHRASE)]).encoded();
    for (path, rest, status) in [
        (all.clone(), Parameters::default(), 403),
        (
            format!("/consent?{secret}"),
            fields.clone().without("secret"),
            401,
        ),
    ] {
        let http = world.elsewhere();
        let mut form = http.form(&path, &rest);
        let cookie = page.cookie.parse().unwrap();
        form.headers_mut().insert(header::COOKIE, cookie);
        let _ = world.refusal_from(&http, form, &Page(status)).await;
    }
    let get = client.http.request(Method::GET, &all);
    let get = get.header(header::COOKIE, &page.cookie).body(Body::empty());
    let answer = world.unchanged(client.http.send(get.unwrap())).await;
    assert_eq!(answer.status, 405);
    for spelling in [PASSPHRASE, &secret["secret=".len()..]] {
        assert!(!world.proxy.output().contains(spelling));
    }
    world.is_approved(&client, &page).await;
}

/// That browsers obey is in `interop/browser.mjs`.
async fn framed(world: Arc<World>) {
    let client = world.client().await;
    let path = format!("/authorize?{}", client.authorization().encoded());
    let shown = client.http.get(&path).await.expect(200);
    assert_eq!(shown.header("x-frame-options"), "DENY");
    let policy = shown.header("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    world.is_approved(&client, &Consent::on(&shown)).await;
}

async fn other_site(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    let with = |headers: &[(&'static str, &str)]| {
        let mut form = client.approval(&page);
        for (name, value) in headers {
            form.headers_mut().insert(*name, value.parse().unwrap());
        }
        form
    };
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site"), ("origin", &world.issuer)],
        &[("sec-fetch-site", "cross-site"), ("origin", "null")],
        &[("sec-fetch-site", "same-origin, cross-site")],
        &[("origin", "https://evil.example")],
        &[("origin", &format!("{}.evil.example", world.issuer))],
    ] {
        world.refused(with(headers), &Page(403)).await;
    }
    // Without a referrer, as our pages are, browsers send `null` from our own form too; the
    // cookie decides then.
    for headers in [
        &[("sec-fetch-site", "same-origin"), ("origin", "null")][..],
        &[("origin", "null")],
        &[("origin", &world.issuer)],
    ] {
        let _ = client.http.send(with(headers)).await.expect(303);
    }
    world.is_approved(&client, &page).await;
}

/// What may stand in a page for each name, and what may not.
async fn odd_name(world: Arc<World>) {
    let long = "A".repeat(5_000);
    for name in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "\u{202e}gpj.edualC",
        "Claude\u{2066}\u{200b}\u{feff}",
        "\u{1b}[31mClaude\u{7}\u{8}",
        "👩\u{200d}👩\u{200d}👧 Claude",
        "C\u{336}\u{336}\u{336}\u{336}\u{336}\u{336}laude",
        "Claude\n\n\n\n\n\nAccess goes to claude.ai",
        &long,
    ] {
        let metadata = json!({
            "client_name": name,
            "redirect_uris": ["https://evil.example/cb"],
            "token_endpoint_auth_method": "none",
        });
        let client = Client::register_as(&world.elsewhere(), &metadata).await;
        let path = format!("/authorize?{}", client.authorization().encoded());
        let shown = client.http.get(&path).await.expect(200);
        let text = shown.text();
        for hidden in [
            "<script",
            "<img",
            "\u{202e}",
            "\u{2066}",
            "\u{200b}",
            "\u{feff}",
            "\u{1b}",
            "\u{7}",
            "\u{200d}",
            "\n\n\n\n",
            &long[..101],
        ] {
            assert!(!text.contains(hidden), "{hidden:?} of {name:?}: {text}");
        }
        assert!(text.len() < 16 * 1024);
        shows_host(&text, "evil.example");
        world.is_approved(&client, &Consent::on(&shown)).await;
    }
}

/// At least as prominently as the client's name.
fn shows_host(page: &str, host: &str) {
    let shown = format!("<strong><bdi translate=\"no\">{host}</bdi></strong>");
    assert_eq!(page.matches(&shown).count(), 2, "{page}");
}

async fn borrowed_name(world: Arc<World>) {
    for (uri, host) in [
        ("https://evil.example/claude.ai", "evil.example"),
        (
            "https://claude.ai.evil.example/cb",
            "claude.ai.evil.example",
        ),
        ("https://xn--clude-8qa.ai/cb", "xn--clude-8qa.ai"),
    ] {
        let client = world.client_at(&[uri]).await;
        let path = format!("/authorize?{}", client.authorization().encoded());
        let shown = client.http.get(&path).await.expect(200);
        assert!(shown.text().contains("not verified"));
        shows_host(&shown.text(), host);
        world.is_approved(&client, &Consent::on(&shown)).await;
    }
}

async fn logo(world: Arc<World>) {
    let decoy = format!("http://{}/logo.svg", world.decoy.address);
    let mut metadata = json!({ "client_name": "Claude", "redirect_uris": ["https://client.example/cb"],
                               "token_endpoint_auth_method": "none" });
    for uri in ["logo_uri", "client_uri", "tos_uri", "policy_uri"] {
        metadata[uri] = Value::from(decoy.clone());
    }
    let client = Client::register_as(&world.elsewhere(), &metadata).await;
    let path = format!("/authorize?{}", client.authorization().encoded());
    let shown = world.unchanged(client.http.get(&path)).await.expect(200);
    assert!(!shown.text().contains(&world.decoy.address.to_string()));
    let policy = shown.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("img-src"), "{policy}");
    world.is_approved(&client, &Consent::on(&shown)).await;
}

async fn older_page(world: Arc<World>) {
    let client = world.client().await;
    let (first, second) = (client.opens_consent().await, client.opens_consent().await);
    let both = format!("{}; {}", first.cookie, second.cookie);
    let form = client.form(&first.fields(PASSPHRASE, "approve"), Some(&both));
    let redirect = client.http.send(form).await.expect(303);
    let _ = client.redeem(&Client::code(&redirect)).await.expect(200);
    world.is_approved(&client, &second).await;
}

async fn approved_twice(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    let before = world.records().await.len();
    let approve = || async { client.approve(&page, PASSPHRASE).await.expect(303) };
    let (a, b, c, d) = tokio::join!(approve(), approve(), approve(), approve());
    let later = approve().await;
    for answer in [&b, &c, &d, &later] {
        assert_eq!(answer.header("location"), a.header("location"));
    }
    assert_eq!(world.records().await.len(), before + 1, "one code");
    let code = Client::code(&a);
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    world.serves(&client, &tokens).await;
    let again = Client::code(&approve().await);
    assert_eq!(again, code);
    let again = client.http.form(
        "/token",
        &client.redemption(&again).with("code_verifier", "x"),
    );
    world.refused(again, &OAuth(400, "invalid_grant")).await;
    world.serves(&client, &tokens).await;
}

async fn changed_mind(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    let deny = |page: &Consent| page.answer(&client.http, "", "deny");
    let _ = client.http.send(deny(&page)).await.expect(303);
    world.refused(client.approval(&page), &Page(409)).await;
    // Denied twice is denied.
    let again = world.unchanged(client.http.send(deny(&page))).await;
    ToClient("access_denied").check(&again, &world.issuer);

    let page = client.opens_consent().await;
    let redirect = client.approve(&page, PASSPHRASE).await.expect(303);
    world.refused(deny(&page), &Page(409)).await;
    let _ = client.redeem(&Client::code(&redirect)).await.expect(200);
}

async fn back_after_success(world: Arc<World>) {
    let client = world.client().await;
    let path = format!("/authorize?{}", client.authorization().encoded());
    let page = Consent::on(&client.http.get(&path).await.expect(200));
    let first = client.approve(&page, PASSPHRASE).await.expect(303);
    let tokens = Tokens::of(&client.redeem(&Client::code(&first)).await.expect(200));
    // The form as the browser remembers it leads to the same place, with nothing new.
    let again = client.approve(&page, PASSPHRASE);
    let again = world.unchanged(again).await.expect(303);
    assert_eq!(again.header("location"), first.header("location"));
    world.age(&client, 60 * 60).await;
    world.refused(client.approval(&page), &Page(400)).await;
    world.serves(&client, &tokens).await;
    // And the address shows a page to approve again.
    let page = Consent::on(&client.http.get(&path).await.expect(200));
    world.is_approved(&client, &page).await;
}

async fn two_tabs(world: Arc<World>) {
    let (one, other) = (
        world.client().await,
        world.client_at(&["https://client.example/cb"]).await,
    );
    let (first, second) = (one.opens_consent().await, other.opens_consent().await);
    let jar = format!("{}; {}", first.cookie, second.cookie);
    for (client, page) in [(&other, &second), (&one, &first)] {
        let form = client.form(&page.fields(PASSPHRASE, "approve"), Some(&jar));
        let redirect = client.http.send(form).await.expect(303);
        assert!(
            redirect
                .header("location")
                .starts_with(&client.redirect_uri)
        );
        let tokens = client.redeem(&Client::code(&redirect)).await.expect(200);
        world.serves(client, &Tokens::of(&tokens)).await;
    }
}

async fn two_browsers(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    // The form is no good elsewhere, and the address asks everybody for the passphrase, also
    // after the approval.
    let other = client.opens_consent().await;
    let form = client.form(&page.fields(PASSPHRASE, "approve"), Some(&other.cookie));
    world.refused(form, &Page(403)).await;
    world.is_approved(&client, &page).await;
    let http = world.elsewhere();
    let form = client.opens_consent().await.answer(&http, "", "approve");
    let _ = world.refusal_from(&http, form, &Page(401)).await;
    world.is_approved(&client, &other).await;
}

async fn planted_cookie(world: Arc<World>) {
    let client = world.client().await;
    let known = client.opens_consent().await;
    let path = format!("/authorize?{}", client.authorization().encoded());
    let request = client.http.request(Method::GET, &path);
    let request = request.header(header::COOKIE, &known.cookie);
    let shown = client.http.send(request.body(Body::empty()).unwrap()).await;
    let page = Consent::on(&shown.expect(200));
    assert_ne!((name(&page), value(&page)), (name(&known), value(&known)));
    let planted = format!("{}={}", name(&page), value(&known));
    let form = client.form(&page.fields(PASSPHRASE, "approve"), Some(&planted));
    world.refused(form, &Page(403)).await;
    world.is_approved(&client, &page).await;

    // The cookie of a browser that was right before says no more than that: without the
    // passphrase it opens nothing, and with it the browser gets one that nobody planted.
    let known = client.known_browser(PASSPHRASE).await;
    let victims = world.elsewhere();
    for (number, secret) in ["", WRONG].into_iter().enumerate() {
        let tried = client.tries_in(&known, &victims, secret);
        let tried = world.unchanged(tried).await;
        Page(401).check(&tried, &world.issuer);
        let left = format!("{} attempts are left", 4 - number);
        assert!(tried.text().contains(&left), "{}", tried.text());
    }
    let approved = client.tries_in(&known, &victims, PASSPHRASE).await;
    let renewed = approved.expect(303).header("set-cookie").to_owned();
    let renewed = renewed.split(';').next().unwrap();
    assert!(renewed.starts_with("mcp-known-browser=") && renewed != known);
    // Who planted it can use it up, and not the new one.
    let thief = world.elsewhere();
    for _ in 0..5 {
        let _ = client.tries_in(&known, &thief, WRONG).await.expect(401);
    }
    let used_up = client.tries_in(&known, &thief, PASSPHRASE).await;
    Page(429).check(&used_up, &world.issuer);
    let approved = client.tries_in(renewed, &victims, PASSPHRASE).await;
    let _ = client
        .redeem(&Client::code(&approved.expect(303)))
        .await
        .expect(200);
}

/// That browsers do as they are told is in `interop/browser.mjs`.
async fn sent_on(world: Arc<World>) {
    let client = world.client().await;
    for decision in ["approve", "deny"] {
        let page = client.opens_consent().await;
        let form = page.answer(&client.http, PASSPHRASE, decision);
        // A browser follows 303 with a GET, whatever it sent.
        let answer = client.http.send(form).await.expect(303);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let form = Parameters::of(&[("secret", PASSPHRASE)]).encoded();
        assert!(!answer.header("location").contains(&form[7..]));
    }
    world
        .is_approved(&client, &client.opens_consent().await)
        .await;
}

/// There is no page in between: the consent page itself says where the answer opens an app. The page
/// after it leads to the app and nowhere else.
async fn way_back(world: Arc<World>) {
    for (uri, goes_to) in [
        ("https://client.example/cb", None),
        (
            "http://localhost:4711/cb",
            Some("This is the computer you are using"),
        ),
        (
            "cursor://anysphere.cursor-mcp/oauth/cb",
            Some("This opens an app on your device"),
        ),
    ] {
        let client = world.client_at(&[uri]).await;
        let path = format!("/authorize?{}", client.authorization().encoded());
        let shown = client.http.get(&path).await.expect(200);
        for said in [
            "This is the computer you are using",
            "This opens an app on your device",
        ] {
            assert_eq!(shown.text().contains(said), goes_to == Some(said), "{uri}");
        }
        let page = Consent::on(&shown);
        let redirect = client.approve(&page, PASSPHRASE).await;
        let location = Client::way_back(&redirect);
        assert!(location.starts_with(&format!("{uri}?code=")), "{location}");
        let tokens = client.redeem(&Client::code(&redirect)).await.expect(200);
        world.serves(&client, &Tokens::of(&tokens)).await;
    }
}

async fn page_headers(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    let path = format!("/authorize?{}", client.authorization().encoded());
    let http = world.elsewhere();
    for answer in [
        client.http.get(&path).await.expect(200),
        client.http.get("/authorize").await.expect(400),
        http.send(page.answer(&http, "x", "approve"))
            .await
            .expect(401),
        client
            .http
            .send(client.form(&page.fields("x", "deny"), None))
            .await
            .expect(403),
    ] {
        is_protected(&answer);
    }
    world.is_approved(&client, &page).await;
}

#[track_caller]
fn is_protected(answer: &Answer) {
    let policy: Vec<&str> = answer
        .header("content-security-policy")
        .split("; ")
        .collect();
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(&part), "{policy:?}");
    }
    // Chromium would hold a `form-action` against the whole way back to the client.
    for part in ["unsafe-", "form-action", "script-src"] {
        assert!(!policy.iter().any(|it| it.contains(part)), "{policy:?}");
    }
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(answer.header(name), value);
    }
}

async fn gone_meanwhile(world: Arc<World>) {
    let (gone, moved, client) = (
        world.client().await,
        world.client().await,
        world.client().await,
    );
    let (of_gone, of_moved) = (gone.opens_consent().await, moved.opens_consent().await);
    let page = client.opens_consent().await;
    world.delete(&format!("client/{}", gone.id)).await;
    world
        .rewrite("client/", &moved, |record| {
            record["redirect_uris"] = json!(["https://elsewhere.example/cb"]);
        })
        .await;
    world.refused(gone.approval(&of_gone), &Page(400)).await;
    world.refused(moved.approval(&of_moved), &Page(400)).await;
    world.is_approved(&client, &page).await;
}
