//! Refresh tokens (RF).

use std::{sync::Arc, time::Duration};

use http::header;
use serde_json::json;
use tokio::time::Instant;

use super::{
    case::{Case, case},
    limits::TOO_MANY,
    refusal::Refusal::OAuth,
    support::{
        client::{Client, Parameters, Tokens},
        wire::Wire,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("N-RF-02", "another client's refresh token", foreign_token),
        case("N-RF-04", "a refresh token in a call", as_access_token),
        case("N-RF-07", "a refresh token of a revoked family", revoked),
        case("N-RF-08", "a refresh token that was idle too long", idle),
        case(
            "N-RF-09",
            "a refresh token of a grant that is too old",
            too_old,
        ),
        case(
            "N-RF-10",
            "the predecessor, within the window: the same successor",
            predecessor_in_time,
        ),
        case(
            "N-RF-11",
            "the predecessor, after the window, when the successor was used",
            predecessor_too_late,
        ),
        case("N-RF-12", "the predecessor of the predecessor", grandparent),
        case(
            "N-RF-13",
            "the predecessor, asking for something else than it did at first",
            predecessor_with_others,
        ),
        case(
            "N-RF-14",
            "a refresh token of a client, consent or server that is gone",
            gone,
        ),
        case(
            "N-RF-19",
            "a refresh token with a bit flipped, at every position",
            flipped,
        ),
        case(
            "N-RF-20",
            "refresh tokens guessed by the thousand",
            by_the_thousand,
        ),
    ];
    cases.extend(
        CHANGED
            .iter()
            .map(|(id, tried, changes)| case(id, tried, |world| changed(world, changes))),
    );
    cases
}

/// What is changed in a good request whose tokens are given, with the error of the refusal.
type Change = (fn(Parameters, &Tokens) -> Parameters, &'static str);

#[rustfmt::skip]
const CHANGED: &[(&str, &str, &[Change])] = &[
    ("N-RF-01", "an unknown refresh token, or none", &[
        (|good, _| good.without("refresh_token"), "invalid_request"),
        (|good, _| good.with("refresh_token", ""), "invalid_request"),
        (|good, _| good.with("refresh_token", "unknown"), INVALID),
        (|good, _| good.with("refresh_token", "mopr_"), INVALID),
        (|good, _| good.with("refresh_token", &format!("mopr_{}", "A".repeat(70))), INVALID),
        (|good, _| good.with("refresh_token", &"x".repeat(50_000)), INVALID),
        (|good, of| good.with("refresh_token", &format!("{}A", of.refresh_token)), INVALID),
        (|good, of| good.with("refresh_token", &format!("{}=", of.refresh_token)), INVALID),
        (|good, of| good.with("refresh_token", &format!("{} ", of.refresh_token)), INVALID),
        (|good, of| good.with("refresh_token", &of.refresh_token[5..]), INVALID),
        (|good, of| good.and("refresh_token", &of.refresh_token), "invalid_request"),
    ]),
    ("N-RF-03", "an access token as refresh token", &[
        (|good, of| good.with("refresh_token", &of.access_token), INVALID),
        (|good, of| good.with("refresh_token", &of.access_token.replace("mopa_", "mopr_")), INVALID),
    ]),
    ("N-RF-05", "a wider scope than was granted", &[
        (|good, _| good.and("scope", "mcp offline_access"), "invalid_scope"),
        (|good, _| good.and("scope", "offline_access"), "invalid_scope"),
    ]),
    ("N-RF-06", "a resource that was not granted", &[
        (|good, _| good.and("resource", "https://evil.example/mcp"), "invalid_target"),
        (|good, _| good.and("resource", "/mcp"), "invalid_target"),
    ]),
];
const INVALID: &str = "invalid_grant";

impl World {
    /// Refreshing with these fields is refused, and rotates nothing.
    async fn refuses_refresh(&self, fields: &Parameters, error: &'static str) {
        let request = self.http.form("/token", fields);
        self.refused(request, &OAuth(400, error)).await;
    }

    /// The twin: refreshing gives tokens that work.
    async fn refreshes(&self, client: &Client, tokens: &Tokens) -> Tokens {
        let refreshed = Tokens::of(&client.refresh(tokens).await.expect(200));
        self.serves(client, &refreshed).await;
        refreshed
    }

    /// This token ends the whole family, of which `live` is the last, and tells the operator.
    async fn takes_for_theft(&self, client: &Client, stolen: &Tokens, live: &Tokens) {
        let alerts = || {
            let output = self.proxy.output();
            output.matches("refresh_token_reuse").count()
        };
        let before = alerts();
        let answer = self.changing(&["grant/"], client.refresh(stolen)).await;
        OAuth(400, INVALID).check(&answer, &self.issuer);
        self.refuses_refresh(&client.refreshment(&live.refresh_token), INVALID)
            .await;
        let _ = client.call(live).await.expect(401);
        while alerts() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Only that family.
        self.lets_in(client, &client.authorization()).await;
    }
}

async fn changed(world: Arc<World>, changes: &'static [Change]) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let good = client.refreshment(&tokens.refresh_token);
    for (change, error) in changes {
        world
            .refuses_refresh(&change(good.clone(), &tokens), error)
            .await;
    }
    let same = good
        .and("scope", "mcp")
        .and("resource", &format!("{}/mcp", world.issuer));
    let answer = client.http.send(client.http.form("/token", &same)).await;
    world
        .serves(&client, &Tokens::of(&answer.expect(200)))
        .await;
}

async fn foreign_token(world: Arc<World>) {
    let (client, thief) = (world.client().await, world.client().await);
    let public = world.client_at(&[&client.redirect_uri]).await;
    let tokens = client.sign_in().await;
    for thief in [&thief, &public] {
        world
            .refuses_refresh(&thief.refreshment(&tokens.refresh_token), INVALID)
            .await;
    }
    let nobody = client
        .refreshment(&tokens.refresh_token)
        .without("client_id")
        .without("client_secret");
    for fields in [nobody.clone(), nobody.and("client_id", &client.id)] {
        world
            .refused(
                world.http.form("/token", &fields),
                &OAuth(401, "invalid_client"),
            )
            .await;
    }
    world.refreshes(&client, &tokens).await;
}

async fn as_access_token(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    for wrong in [
        tokens.refresh_token.clone(),
        tokens.refresh_token.replace("mopr_", "mopa_"),
    ] {
        let wrong = Tokens {
            access_token: wrong,
            ..tokens.clone()
        };
        world
            .refused(client.call_request(&wrong), &OAuth(401, "invalid_token"))
            .await;
    }
    world.serves(&client, &tokens).await;
    world.refreshes(&client, &tokens).await;
}

async fn revoked(world: Arc<World>) {
    let client = world.client().await;
    let (tokens, other) = (client.sign_in().await, client.sign_in().await);
    let refreshed = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let revocation = client.revocation(&refreshed.access_token);
    let _ = client
        .http
        .send(client.http.form("/revoke", &revocation))
        .await
        .expect(200);
    for dead in [&tokens, &refreshed] {
        world
            .refuses_refresh(&client.refreshment(&dead.refresh_token), INVALID)
            .await;
    }
    world.refreshes(&client, &other).await;
}

const DAY: i64 = 24 * 60 * 60;

async fn idle(world: Arc<World>) {
    let client = world.client().await;
    let kept = client.sign_in().await;
    world.age(&client, 30 * DAY - 600).await;
    // In time, and that starts the thirty days anew.
    let kept = world.refreshes(&client, &kept).await;
    let idle = client.sign_in().await;
    world.age(&client, 30 * DAY - 600).await;
    let kept = world.refreshes(&client, &kept).await;
    world.age(&client, 600).await;
    world
        .refuses_refresh(&client.refreshment(&idle.refresh_token), INVALID)
        .await;
    world.refreshes(&client, &kept).await;
}

async fn too_old(world: Arc<World>) {
    let world = world
        .another("tokens.refresh_absolute = \"60d\"\ntokens.refresh_idle = \"30d\"")
        .await;
    let client = world.client().await;
    let mut tokens = client.sign_in().await;
    for _ in 0..2 {
        world.age(&client, 29 * DAY).await;
        tokens = world.refreshes(&client, &tokens).await;
    }
    // Whatever is left bounds the access token too.
    world.age(&client, 2 * DAY - 600).await;
    let last = client.refresh(&tokens).await.expect(200);
    assert!(last.json()["expires_in"].as_i64().unwrap() <= 600);
    let last = Tokens::of(&last);
    world.age(&client, 600).await;
    world
        .refuses_refresh(&client.refreshment(&last.refresh_token), INVALID)
        .await;
    world.refreshes(&client, &client.sign_in().await).await;
}

async fn predecessor_in_time(world: Arc<World>) {
    let client = world.client().await;
    let first = client.sign_in().await;
    let second = world.refreshes(&client, &first).await;
    world.age(&client, 90).await;
    for _ in 0..3 {
        let again = world.unchanged(client.refresh(&first)).await.expect(200);
        let again = Tokens::of(&again);
        assert_eq!(again.refresh_token, second.refresh_token);
        world.serves(&client, &again).await;
    }
    world.refreshes(&client, &second).await;
}

async fn predecessor_too_late(world: Arc<World>) {
    let client = world.client().await;
    let first = client.sign_in().await;
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    // As long as nothing of the successor was used, the answer may have been lost.
    world.age(&client, 121).await;
    let again = Tokens::of(&client.refresh(&first).await.expect(200));
    assert_eq!(again.refresh_token, second.refresh_token);
    world.serves(&client, &second).await;
    world.takes_for_theft(&client, &first, &second).await;
}

async fn grandparent(world: Arc<World>) {
    let client = world.client().await;
    let first = client.sign_in().await;
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let third = world.refreshes(&client, &second).await;
    world.takes_for_theft(&client, &first, &third).await;
}

async fn predecessor_with_others(world: Arc<World>) {
    let (client, thief) = (world.client().await, world.client().await);
    let wide = client.authorization().and("scope", "mcp offline_access");
    let first = client.sign_in_with(&wide).await;
    let second = world.refreshes(&client, &first).await;
    let again = client.refreshment(&first.refresh_token);
    for (other, error) in [
        (again.clone().and("scope", "mcp"), INVALID),
        (again.clone().and("scope", "offline_access"), INVALID),
        (
            again.clone().and("resource", "https://evil.example/mcp"),
            "invalid_target",
        ),
        (thief.refreshment(&first.refresh_token), INVALID),
    ] {
        world.refuses_refresh(&other, error).await;
    }
    // What is the same in other words.
    let same = again
        .and("scope", "offline_access mcp")
        .and("resource", &format!("{}/mcp", world.issuer));
    let answer = client.http.send(client.http.form("/token", &same)).await;
    assert_eq!(
        Tokens::of(&answer.expect(200)).refresh_token,
        second.refresh_token
    );
    world.refreshes(&client, &second).await;
}

/// A client that is not known is told so, and registers again; the grant would not help it.
async fn gone(world: Arc<World>) {
    let mut world = world.another("").await;
    let (client, gone) = (world.client().await, world.client().await);
    let (tokens, of_gone) = (client.sign_in().await, gone.sign_in().await);
    world.delete(&format!("client/{}", gone.id)).await;
    let refresh = gone.refreshment(&of_gone.refresh_token);
    world
        .refused(
            world.http.form("/token", &refresh),
            &OAuth(401, "invalid_client"),
        )
        .await;

    let withdrawn = client.sign_in().await;
    world
        .rewrite("grant/", &client, |record| {
            if record["revoked"].is_null() && record["generation"] == 1 {
                record["revoked"] = json!("by_client");
            }
        })
        .await;
    for dead in [&tokens, &withdrawn] {
        world
            .refuses_refresh(&client.refreshment(&dead.refresh_token), INVALID)
            .await;
    }

    let tokens = client.sign_in().await;
    world.proxy.stop().await;
    world.proxy.reconfigure("[upstream.one]", "[upstream.two]");
    world.proxy.start().await;
    world
        .refuses_refresh(&client.refreshment(&tokens.refresh_token), INVALID)
        .await;
    world.proxy.stop().await;
    world.proxy.reconfigure("[upstream.two]", "[upstream.one]");
    world.proxy.start().await;
    world.refreshes(&client, &tokens).await;
}

async fn flipped(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let flipped = async {
        let token = &tokens.refresh_token;
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] ^= 1 << (index % 7);
            let wrong = client.refreshment(&String::from_utf8(bytes).unwrap());
            let request = world.http.form("/token", &wrong);
            let answer = world.http.send(request).await;
            OAuth(400, INVALID).check(&answer, &world.issuer);
            assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
        }
    };
    world.unchanged(flipped).await;
    world.refreshes(&client, &tokens).await;
}

/// As many more would change nothing but the time it takes: the limiter lets one in a second be
/// looked at.
async fn by_the_thousand(world: Arc<World>) {
    const BATCHES: u64 = 40;
    const BATCH: usize = 100;
    world.is_by_default("wrong_tokens_per_address", "60/m");
    let limited = "limits.wrong_tokens_per_address = \"60/m\"";
    let mut world = world.another(limited).await;
    // To log everything of each would be most of the work.
    world.restart_with(&[("RUST_LOG", "warn")]).await;
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let http = world.elsewhere();
    let mut random = 1_u64;
    let mut guess = || {
        // Half of them name a family that there is.
        let (prefix, rest) = tokens.refresh_token.split_at(5);
        let kept = if random.is_multiple_of(2) { 22 } else { 0 };
        let mut guess = format!("{prefix}{}", &rest[..kept]);
        while guess.len() < tokens.refresh_token.len() {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let digit = usize::try_from(random >> 58).unwrap();
            guess.push(char::from(BASE64URL[digit]));
        }
        let form = client.refreshment(&guess).encoded();
        format!(
            "POST /token HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n{form}",
            http.address,
            form.len()
        )
    };
    let started = Instant::now();
    let guessing = async {
        let mut wire = Wire::open(&http).await;
        let mut looked_at = 0;
        for _ in 0..BATCHES {
            let guesses: Vec<String> = (0..BATCH).map(|_| guess()).collect();
            for answer in wire.pipelined(&guesses).await {
                if answer.status == 429 {
                    OAuth(429, TOO_MANY).check(&answer, &world.issuer);
                    assert_eq!(answer.header("retry-after"), "1");
                } else {
                    OAuth(400, INVALID).check(&answer, &world.issuer);
                    looked_at += 1;
                }
            }
        }
        looked_at
    };
    let before = world.proxy.resident_kib();
    let looked_at = world.unchanged(guessing).await;
    let most = 60 + started.elapsed().as_secs() + 1;
    assert!((60..=most).contains(&looked_at), "{looked_at} of {most}");
    let grown = world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    let limited = "limited_total{limit=\"wrong_tokens_per_address\"}";
    let refused = BATCHES * BATCH as u64 - looked_at;
    assert_eq!(world.metric(limited).await, refused);

    // Whoever holds the token refreshes from there all the same.
    let held = http.form("/token", &client.refreshment(&tokens.refresh_token));
    let refreshed = Tokens::of(&http.send(held).await.expect(200));
    world.serves(&client, &refreshed).await;
}

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
