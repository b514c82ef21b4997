//! A crash at each point of each operation: before its commit, after its commit and before its
//! answer, and after its answer. All from outside: another program holds the store, or the
//! network keeps the answer back, while the process is killed.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    World,
    invariants::{no_double_spend, no_fork, no_resurrection, no_session_is_lost, session_is_whole},
    locked::Locked,
    relay::{Flow, Relay},
    support::{
        PASSPHRASE,
        client::{Answer, Client, Consent, Http, REDIRECT_URI, Tokens},
    },
};

/// Time for a request to get as far as it can.
const A_WHILE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that changes the store, prepared so that it can be sent more than once.
enum Operation {
    Registration,
    Consent(Consent),
    Redemption(String),
    Rotation,
    Revocation,
}

impl Operation {
    async fn all(world: &World) -> Vec<Self> {
        let client = &world.client;
        let consent = client.opens_consent().await;
        let approved = client.approve(&consent, PASSPHRASE).await.expect(303);
        vec![
            Self::Registration,
            Self::Consent(client.opens_consent().await),
            Self::Redemption(Client::code(&approved)),
            Self::Rotation,
            // The last, since nothing can be done with the grant afterwards.
            Self::Revocation,
        ]
    }

    fn request(&self, world: &World) -> Request<Body> {
        let client = &world.client;
        let form = |path, fields| client.http.form(path, &fields);
        match self {
            Self::Registration => client
                .http
                .request(Method::POST, "/register")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(
                    json!({ "redirect_uris": [REDIRECT_URI] }).to_string(),
                ))
                .unwrap(),
            Self::Consent(consent) => consent.answer(&client.http, PASSPHRASE, "approve"),
            Self::Redemption(code) => form("/token", client.redemption(code)),
            Self::Rotation => form("/token", client.refreshment(&world.tokens.refresh_token)),
            Self::Revocation => form("/revoke", client.revocation(&world.tokens.refresh_token)),
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Registration => 201,
            Self::Consent(_) => 303,
            Self::Redemption(_) | Self::Rotation | Self::Revocation => 200,
        }
    }

    /// What was answered with a success is so.
    async fn is_kept(&self, world: &mut World, answer: &Answer) {
        let client = &world.client;
        match self {
            Self::Registration => {
                let registered = Client {
                    id: answer.json()["client_id"].as_str().unwrap().to_owned(),
                    ..client.clone()
                };
                let _ = registered.opens_consent().await;
            }
            Self::Consent(_) => {
                let redeemed = client.redeem(&Client::code(answer)).await.expect(200);
                session_is_whole(client, &Tokens::of(&redeemed)).await;
            }
            Self::Redemption(code) => {
                let last = session_is_whole(client, &Tokens::of(answer)).await;
                no_double_spend(&client.redeem(code).await);
                // Soon after the first it is taken for a duplicate, later for theft.
                let _ = client.refresh(&last).await;
            }
            Self::Rotation => {
                world.tokens = session_is_whole(client, &Tokens::of(answer)).await;
            }
            Self::Revocation => no_resurrection(client, &world.tokens).await,
        }
    }
}

/// FI-02
#[tokio::test]
async fn fi_02_a_crash_before_the_commit_has_changed_nothing() {
    for mut world in World::on_each_store("before_commit").await {
        for operation in Operation::all(&world).await {
            let mut locked = Locked::store_of(&world).await;
            let sent = async {
                let sent = world.client.http.try_send(operation.request(&world));
                timeout(A_WHILE, sent).await
            };
            assert!(sent.await.is_err(), "{}: it did not wait", world.store());
            world.proxy.kill().await;
            // Or the statement of a process that is no more would still be done.
            locked.end_who_waits().await;
            locked.release().await;
            world.proxy.start().await;

            let again = world.client.http.send(operation.request(&world)).await;
            let again = again.expect(operation.status());
            operation.is_kept(&mut world, &again).await;
        }
        world.end().await;
    }
}

/// FI-02
#[tokio::test]
async fn fi_02_a_crash_between_commit_and_answer_is_healed_by_asking_again() {
    for mut world in World::on_each_store("before_answer").await {
        for operation in Operation::all(&world).await {
            let relay = Relay::to(world.proxy.address).await;
            relay.set(Flow::KeepAnswers);
            let http = Http::to(relay.address);
            let request = operation.request(&world);
            let (unanswered, ()) = tokio::join!(timeout(PATIENCE, http.try_send(request)), async {
                while !relay.kept().contains("\r\n\r\n") {
                    sleep(Duration::from_millis(5)).await;
                }
                world.proxy.kill().await;
            });
            assert!(unanswered.unwrap().is_err());
            world.proxy.start().await;

            let (client, lost) = (&world.client, relay.kept());
            assert!(
                lost.contains(&format!(" {} ", operation.status())),
                "{lost}"
            );
            let again = client.http.send(operation.request(&world)).await;
            match &operation {
                Operation::Redemption(_) => no_double_spend(&again),
                Operation::Rotation => {
                    no_fork(&no_session_is_lost(&again), &tokens_in(&lost));
                    operation.is_kept(&mut world, &again).await;
                }
                Operation::Consent(_) => {
                    assert!(lost.contains(again.header("location")), "{lost}");
                    operation.is_kept(&mut world, &again).await;
                }
                Operation::Registration | Operation::Revocation => {
                    let again = again.expect(operation.status());
                    operation.is_kept(&mut world, &again).await;
                }
            }
        }
        world.end().await;
    }
}

/// FI-02
#[tokio::test]
async fn fi_02_a_crash_after_the_answer_takes_nothing_back() {
    for mut world in World::on_each_store("after_answer").await {
        for operation in Operation::all(&world).await {
            let answer = world.client.http.send(operation.request(&world)).await;
            world.proxy.kill().await;
            world.proxy.start().await;
            let answer = answer.expect(operation.status());
            operation.is_kept(&mut world, &answer).await;
        }
        world.end().await;
    }
}

/// The tokens in an answer that never arrived.
fn tokens_in(answer: &str) -> Tokens {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = body.trim_matches(|c| c != '{' && c != '}');
    let json: Value = serde_json::from_str(body).unwrap();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    Tokens {
        access_token: text("access_token"),
        refresh_token: text("refresh_token"),
    }
}
