//! Races for codes, refresh tokens and grants.

use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection, raw_sql};

use super::{
    PARALLEL, World, race,
    support::{
        PASSPHRASE,
        client::{Answer, Client, Tokens, VERIFIER},
    },
};

impl World {
    fn redemption(&self, code: &str, verifier: &str) -> Request<Body> {
        let fields = self.client.redemption(code).with("code_verifier", verifier);
        self.client.http.form("/token", &fields)
    }

    fn refreshment(&self, tokens: &Tokens) -> Request<Body> {
        let fields = self.client.refreshment(&tokens.refresh_token);
        self.client.http.form("/token", &fields)
    }

    fn revocation(&self, tokens: &Tokens) -> Request<Body> {
        let fields = self.client.revocation(&tokens.refresh_token);
        self.client.http.form("/revoke", &fields)
    }

    async fn one(&self, request: Request<Body>) -> Answer {
        self.lanes.send(vec![request]).await.remove(0)
    }

    async fn refresh(&self, tokens: &Tokens) -> Tokens {
        Tokens::of(&self.one(self.refreshment(tokens)).await.expect(200))
    }

    /// One token set of a code, which is whole: it calls, and it refreshes.
    async fn is_alive(&self, tokens: &Tokens) -> Tokens {
        let _ = self.one(self.client.call_request(tokens)).await.expect(200);
        self.refresh(tokens).await
    }

    /// No process takes any of it. One that has not heard of the end yet may for five seconds
    /// take an access token, so who refreshes is asked, which reads the store.
    async fn is_dead(&self, tokens: &Tokens) {
        let requests = self.proxies.iter().map(|_| self.refreshment(tokens));
        for answer in self.lanes.send(requests.collect()).await {
            let _ = answer.expect(400);
        }
    }
}

/// The answers that succeeded; each other one is a refusal in words.
fn successes(answers: Vec<Answer>) -> Vec<Tokens> {
    let mut tokens = Vec::new();
    for answer in answers {
        if answer.status == 200 {
            tokens.push(Tokens::of(&answer));
        } else {
            let answer = answer.expect(400);
            assert_eq!(answer.json()["error"], "invalid_grant");
        }
    }
    tokens
}

fn distinct(tokens: &[Tokens]) -> usize {
    let texts: BTreeSet<_> = tokens.iter().map(|tokens| &tokens.refresh_token).collect();
    texts.len()
}

#[tokio::test]
async fn rc_01_one_code_a_hundred_times_at_once_is_redeemed_once() {
    race("RC-01", async |world| {
        let code = world.code().await;
        let requests = (0..PARALLEL).map(|_| world.redemption(&code, VERIFIER));
        let won = successes(world.lanes.send(requests.collect()).await);
        assert_eq!(won.len(), 1);
        world.is_alive(&won[0]).await;
    })
    .await;
}

#[tokio::test]
async fn rc_02_wrong_verifiers_take_no_code_from_the_right_one() {
    const WRONG: &str = "aBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    race("RC-02", async |world| {
        let code = world.code().await;
        let requests = (0..PARALLEL).map(|number| {
            let right = number == PARALLEL / 2;
            world.redemption(&code, if right { VERIFIER } else { WRONG })
        });
        let mut answers = world.lanes.send(requests.collect()).await;
        let right = answers.swap_remove(PARALLEL / 2).expect(200);
        assert!(successes(answers).is_empty());
        world.is_alive(&Tokens::of(&right)).await;
    })
    .await;
}

#[tokio::test]
async fn rc_03_one_refresh_token_a_hundred_times_at_once_has_one_successor() {
    race("RC-03", async |world| {
        let first = world.client.sign_in().await;
        let requests = (0..PARALLEL).map(|_| world.refreshment(&first));
        let answers = world.lanes.send(requests.collect()).await;
        let won: Vec<_> = answers
            .into_iter()
            .map(|answer| Tokens::of(&answer.expect(200)))
            .collect();
        assert_eq!(distinct(&won), 1);
        let calls = won.iter().map(|tokens| world.client.call_request(tokens));
        for called in world.lanes.send(calls.collect()).await {
            let _ = called.expect(200);
        }
        let next = world.refresh(&won[0]).await;
        assert!(next.refresh_token != won[0].refresh_token);
    })
    .await;
}

#[tokio::test]
async fn rc_04_the_old_and_the_new_generation_at_once_leave_one_live_branch_at_most() {
    race("RC-04", async |world| {
        let old = world.client.sign_in().await;
        let new = world.refresh(&old).await;
        let requests = (0..PARALLEL)
            .map(|number| world.refreshment(if number % 2 == 0 { &old } else { &new }));
        let answers = world.lanes.send(requests.collect()).await;
        let (mut of_old, mut of_new) = (Vec::new(), Vec::new());
        for (number, answer) in answers.into_iter().enumerate() {
            let side = if number % 2 == 0 {
                &mut of_old
            } else {
                &mut of_new
            };
            side.push(answer);
        }
        let (of_old, of_new) = (successes(of_old), successes(of_new));
        // What the old one is given is what it was given before.
        assert!(
            of_old
                .iter()
                .all(|tokens| tokens.refresh_token == new.refresh_token)
        );
        assert!(distinct(&of_new) <= 1);
        // Once the new one is redeemed the old one is a replay, and ends the family.
        let _ = world.one(world.refreshment(&old)).await.expect(400);
        for tokens in of_new.iter().chain([&new]) {
            world.is_dead(tokens).await;
        }
    })
    .await;
}

#[tokio::test]
async fn rc_06_what_is_revoked_while_it_is_refreshed_stays_revoked() {
    race("RC-06", async |world| {
        let first = world.client.sign_in().await;
        let requests = (0..PARALLEL).map(|number| {
            if number == PARALLEL / 2 {
                world.revocation(&first)
            } else {
                world.refreshment(&first)
            }
        });
        let mut answers = world.lanes.send(requests.collect()).await;
        let _ = answers.swap_remove(PARALLEL / 2).expect(200);
        let issued = successes(answers);
        for tokens in issued.iter().take(1).chain([&first]) {
            world.is_dead(tokens).await;
        }
        // Where it was revoked not even a token that was used a moment ago works.
        let process = PARALLEL / 2 % world.proxies.len();
        if process == 0 {
            let _ = world
                .one(world.client.call_request(&first))
                .await
                .expect(401);
        }
    })
    .await;
}

#[tokio::test]
async fn rc_07_a_client_that_is_removed_meanwhile_leaves_no_token_without_a_grant() {
    race("RC-07", async |world| {
        let client = Client::register(&world.client.http).await;
        let consent = client.opens_consent().await;
        let code = Client::code(&client.approve(&consent, PASSPHRASE).await.expect(303));
        let tokens = client.sign_in().await;
        let http = &client.http;
        let requests = (0..PARALLEL).map(|number| match number % 2 {
            0 => http.form("/token", &client.redemption(&code)),
            _ => http.form("/token", &client.refreshment(&tokens.refresh_token)),
        });
        let (answers, ()) = tokio::join!(
            world.lanes.send(requests.collect()),
            remove_client(world, &client)
        );
        let mut issued = Vec::new();
        for answer in answers {
            match answer.status.as_u16() {
                200 => issued.push(Tokens::of(&answer)),
                // Too late for the code, or for the client.
                400 => assert_eq!(answer.json()["error"], "invalid_grant"),
                _ => {
                    let answer = answer.expect(401);
                    assert_eq!(answer.json()["error"], "invalid_client");
                }
            }
        }
        assert!(
            distinct(&issued) <= 2,
            "a code or a refresh token was spent twice"
        );
        let calls = issued.iter().map(|tokens| client.call_request(tokens));
        for called in world.lanes.send(calls.collect()).await {
            let _ = called.expect(200);
        }
        let gone = http.form("/token", &client.refreshment(&tokens.refresh_token));
        let gone = world.one(gone).await.expect(401);
        assert_eq!(gone.json()["error"], "invalid_client");
    })
    .await;
}

#[tokio::test]
async fn rc_08_approvals_and_denials_of_one_page_have_one_outcome() {
    race("RC-08", async |world| {
        let consent = world.client.opens_consent().await;
        let requests = (0..PARALLEL).map(|number| {
            let decision = if number % 3 == 0 { "deny" } else { "approve" };
            consent.answer(&world.client.http, PASSPHRASE, decision)
        });
        let answers = world.lanes.send(requests.collect()).await;
        // Some are told that it was decided otherwise; all redirects lead to the same.
        let mut outcomes = BTreeSet::new();
        for answer in answers {
            if answer.status == 303 {
                outcomes.insert(answer.header("location").to_owned());
            } else {
                assert!(answer.status.is_client_error(), "{answer:#?}");
            }
        }
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        let outcome = outcomes.pop_first().unwrap();
        if !outcome.contains("error=") {
            let code = outcome.split("code=").nth(1).unwrap();
            let code = code.split('&').next().unwrap();
            let redeemed = world.one(world.redemption(code, VERIFIER)).await;
            world.is_alive(&Tokens::of(&redeemed.expect(200))).await;
        }
    })
    .await;
}

#[tokio::test]
async fn rc_11_a_client_that_is_swept_while_it_asks_gets_a_clear_answer() {
    race("RC-11", async |world| {
        let client = Client::register(&world.client.http).await;
        let path = format!("/authorize?{}", client.authorization().encoded());
        let consent = client.opens_consent().await;
        let requests = (0..PARALLEL).map(|number| match number % 2 {
            0 => {
                let request = client.http.request(http::Method::GET, &path);
                request.body(Body::empty()).unwrap()
            }
            _ => consent.answer(&client.http, PASSPHRASE, "approve"),
        });
        let (answers, ()) = tokio::join!(
            world.lanes.send(requests.collect()),
            remove_client(world, &client)
        );
        for answer in answers {
            let status = answer.status.as_u16();
            assert!([200, 303, 400, 401, 403].contains(&status), "{answer:#?}");
        }
        let page = client.http.request(http::Method::GET, &path);
        let page = world
            .one(page.body(Body::empty()).unwrap())
            .await
            .expect(400);
        assert!(!page.headers.contains_key("location"));
        assert!(
            page.text().contains("not registered") || page.text().contains("not known"),
            "{}",
            page.text()
        );
    })
    .await;
}

/// Takes the client's record out of the store, as the sweep does once nobody has used it for long.
async fn remove_client(world: &World, client: &Client) {
    let remove = AssertSqlSafe(format!(
        "DELETE FROM mcp_oauth_proxy_records WHERE key = 'client/{}'",
        client.id
    ));
    let removed = if let Some(schema) = &world.schema {
        let mut store = PgConnection::connect(schema.url.as_str()).await.unwrap();
        raw_sql(remove)
            .execute(&mut store)
            .await
            .unwrap()
            .rows_affected()
    } else {
        let file = world.proxies[0].data_dir().join("records.sqlite");
        let url = format!("sqlite://{}?mode=rw", file.display());
        let mut store = SqliteConnection::connect(&url).await.unwrap();
        raw_sql(remove)
            .execute(&mut store)
            .await
            .unwrap()
            .rows_affected()
    };
    assert_eq!(removed, 1);
}
