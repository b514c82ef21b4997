//! Guessing what the consent page asks for (of CN).

use std::sync::Arc;

use super::{
    case::{Case, case},
    refusal::Refusal::{Page, ToClient},
    support::{
        PASSPHRASE,
        client::{Answer, Client, Consent, Http, Tokens},
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "N-CN-09",
            "twenty wrong passphrases on one page",
            on_one_page,
        ),
        case(
            "N-CN-10",
            "a thousand pages, tried once each from a thousand addresses",
            from_everywhere,
        ),
        case(
            "N-CN-11",
            "keeping the owner out by guessing wrong",
            owner_kept_out,
        ),
    ]
}

pub const WRONG: &str = "wrong horse";
const PIN: &str = "k7f2m9";

impl Client {
    /// A browser in which the passphrase was right once: the cookie by which it is known.
    pub async fn known_browser(&self, passphrase: &str) -> String {
        let page = self.opens_consent().await;
        let approved = self.approve(&page, passphrase).await.expect(303);
        let cookie = approved.header("set-cookie").split(';').next().unwrap();
        assert!(cookie.contains("mcp-known-browser="), "{cookie}");
        cookie.to_owned()
    }

    /// A browser with this cookie beside its own opens a page and answers it, from where `http` is.
    pub async fn tries_in(&self, known: &str, http: &Http, passphrase: &str) -> Answer {
        let page = self.opens_consent().await;
        let page = Consent {
            cookie: format!("{}; {known}", page.cookie),
            ..page
        };
        http.send(page.answer(http, passphrase, "approve")).await
    }

    /// The same in a browser that nobody knows.
    pub async fn tries_from(&self, http: &Http, passphrase: &str) -> Answer {
        self.tries_in("x=y", http, passphrase).await
    }
}

impl World {
    /// Starts anew with these in place of the passphrase that the tests have.
    pub async fn restart_with(&mut self, variables: &[(&str, &str)]) {
        self.proxy.stop().await;
        for (name, value) in variables {
            self.proxy.set(name, value);
        }
        self.proxy.start().await;
    }
}

/// One that was generated, which strangers may try as long as they like: only so do they come to
/// twenty on one page before all of them are slowed down.
async fn on_one_page(world: Arc<World>) {
    const TOLD: &str = "so keep it:\n  ";
    let mut world = world.another("").await;
    world.restart_with(&[("PASSPHRASE", "")]).await;
    let output = world.proxy.says(0, TOLD).await;
    let told = output.split(TOLD).nth(1).unwrap();
    let passphrase = told.lines().next().unwrap();

    let client = world.client().await;
    let (page, other) = (client.opens_consent().await, client.opens_consent().await);
    for _ in 0..4 {
        let http = world.elsewhere();
        for _ in 0..5 {
            let form = page.answer(&http, WRONG, "approve");
            let _ = world.refusal_from(&http, form, &Page(401)).await;
        }
    }
    for secret in [passphrase, WRONG] {
        let http = world.elsewhere();
        let form = page.answer(&http, secret, "approve");
        let answer = world.refusal_from(&http, form, &Page(403)).await;
        let says = "it cannot approve anything any more";
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    let limited = "limited_total{limit=\"attempts_per_page\"}";
    assert_eq!(world.metric(limited).await, 2);
    // To say no is no attempt.
    let denied = page.answer(&client.http, "", "deny");
    let denied = world.changing(&["code/"], client.http.send(denied)).await;
    ToClient("access_denied").check(&denied, &world.issuer);

    let approved = client.approve(&other, passphrase).await.expect(303);
    let _ = client.redeem(&Client::code(&approved)).await.expect(200);
}

/// A PIN, since another attempt is there only after an hour.
async fn from_everywhere(world: Arc<World>) {
    let mut world = world.another(&format!("sign_in.pin = \"{PIN}\"")).await;
    world.restart_with(&[("PASSPHRASE", "")]).await;
    let client = world.client().await;
    let known = client.known_browser(PIN).await;
    let guessing = async {
        let mut looked_at = 0;
        for _ in 0..1_000 {
            let answer = client.tries_from(&world.elsewhere(), "000000").await;
            if answer.status == 401 {
                looked_at += 1;
            } else {
                Page(429).check(&answer, &world.issuer);
                let wait: u32 = answer.header("retry-after").parse().unwrap();
                assert!((3_500..=3_600).contains(&wait), "{wait}");
            }
        }
        looked_at
    };
    assert_eq!(world.unchanged(guessing).await, 10);
    assert_eq!(world.metric("guessing_slowed_total").await, 1);
    assert_eq!(world.metric("sign_in_failures_total").await, 10);
    assert_eq!(world.metric("sign_ins_blocked_total").await, 990);

    // Neither the right one nor a restart helps a stranger.
    let right = client.tries_from(&world.elsewhere(), PIN).await;
    Page(429).check(&right, &world.issuer);
    world.restart_with(&[]).await;
    let right = client.tries_from(&world.elsewhere(), PIN).await;
    Page(429).check(&right, &world.issuer);
    // It keeps out nobody who signed in before.
    let http = world.elsewhere();
    let approved = client.tries_in(&known, &http, PIN).await.expect(303);
    let _ = client.redeem(&Client::code(&approved)).await.expect(200);
}

async fn owner_kept_out(world: Arc<World>) {
    const QUARTER_OF_AN_HOUR: u32 = 15 * 60;
    let world = world.another("").await;
    let client = world.client().await;
    let home = world.elsewhere();
    let known = client.known_browser(PASSPHRASE).await;
    for _ in 0..5 {
        let _ = client.tries_from(&home, WRONG).await.expect(401);
    }
    let waits = |answer: &Answer| -> u32 {
        Page(429).check(answer, &world.issuer);
        answer.header("retry-after").parse().unwrap()
    };
    // Whom nobody knows there has to wait, though no longer; nor does it begin anew.
    let blocked = world.unchanged(client.tries_from(&home, PASSPHRASE)).await;
    let wait = waits(&blocked);
    assert!((QUARTER_OF_AN_HOUR - 60..=QUARTER_OF_AN_HOUR).contains(&wait));
    for _ in 0..20 {
        let blocked = client.tries_from(&home, WRONG).await;
        assert!(waits(&blocked) <= wait);
    }
    // From elsewhere it is seconds, whatever strangers do.
    for _ in 0..20 {
        let _ = client.tries_from(&world.elsewhere(), WRONG).await;
    }
    let blocked = client.tries_from(&world.elsewhere(), PASSPHRASE).await;
    assert!(waits(&blocked) <= 10);

    // Nor is a browser known by a cookie that is cut, changed, or there twice.
    let cut = &known[..known.len() - 1];
    for odd in [cut, &format!("{cut}%"), &format!("{known}; {known}")] {
        waits(&client.tries_in(odd, &home, PASSPHRASE).await);
    }

    // The owner's own browser does not wait, not even after a mistake.
    let wrong = client.tries_in(&known, &home, WRONG).await;
    let wrong = wrong.expect(401).text();
    assert!(wrong.contains("4 attempts are left"), "{wrong}");
    let approved = client.tries_in(&known, &home, PASSPHRASE).await.expect(303);
    let tokens = client.redeem(&Client::code(&approved)).await.expect(200);
    world.serves(&client, &Tokens::of(&tokens)).await;
}
