//! A process that is killed in the middle of its work, again and again, loses nobody's session.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, header};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    from_environment,
    invariants::{Footprint, is_bounded, recovers, session_is_whole},
    support::{
        PASSPHRASE,
        client::{Answer, Client, Consent, Http, REDIRECT_URI, Tokens},
        postgres::Schema,
        proxy::Proxy,
        say,
        upstream::Upstream,
    },
};

/// In a normal run; `SESSIONS`, `KILLS` and `ROTATIONS` ask for other numbers.
const SESSIONS: usize = 50;
const KILLS: usize = 8;
const ROTATIONS: usize = 300;
/// Rotations between the sign-in and the revocation of a grant.
const ROTATIONS_PER_LIFE: usize = 5;
/// Time to the next kill once there were enough rotations for it, in milliseconds.
const KILL_AFTER: std::ops::Range<u64> = 5..200;
/// How long a session waits for a process that is down.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a process may be down for a session.
const PATIENCE: Duration = Duration::from_mins(5);

/// FI-01, S1-17, S1-24, TK-18
#[tokio::test]
async fn fi_01_killing_the_process_on_sqlite_loses_no_session() {
    kill_again_and_again("SQLite", "store = \"sqlite\"").await;
}

/// FI-01, S1-24, TK-18
#[tokio::test]
async fn fi_01_killing_the_process_on_postgresql_loses_no_session() {
    let Some(schema) = Schema::new("kills").await else {
        return;
    };
    let store = format!("store = \"{}\"", schema.url);
    kill_again_and_again("PostgreSQL", &store).await;
    schema.remove().await;
}

/// What a session does.
#[derive(Clone, Copy, Debug)]
enum Work {
    Registration,
    Consent,
    Redemption,
    Rotation,
    Revocation,
    /// Looking whether what was done is so.
    Check,
}

const WORKS: [Work; 6] = [
    Work::Registration,
    Work::Consent,
    Work::Redemption,
    Work::Rotation,
    Work::Revocation,
    Work::Check,
];

/// What all sessions together have seen.
#[derive(Default)]
struct Tally {
    done: [AtomicUsize; WORKS.len()],
    under_way: [AtomicUsize; WORKS.len()],
    unanswered: AtomicUsize,
    unavailable: AtomicUsize,
    /// Codes that were spent by a request whose answer was lost: no session began.
    spent_unseen: AtomicUsize,
    rotations: AtomicUsize,
    twins: AtomicUsize,
    lost: Mutex<Vec<String>>,
    forked: Mutex<Vec<String>>,
    double_spent: Mutex<Vec<String>>,
    resurrected: Mutex<Vec<String>>,
    is_enough: AtomicBool,
}

async fn kill_again_and_again(name: &str, store: &str) {
    let (kills_wanted, rotations_wanted) = (
        from_environment("KILLS", KILLS),
        from_environment("ROTATIONS", ROTATIONS),
    );
    let sessions_wanted = from_environment("SESSIONS", SESSIONS);
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::with(upstream.address, store).await;
    let http = Http::to(proxy.address);
    let before = Footprint::of(&proxy);
    let tally = Arc::new(Tally::default());
    let mut sessions = JoinSet::new();
    // One of long ago, whose tokens are used up.
    let client = Client::register(&http).await;
    let oldest = client.sign_in().await;
    let later = Tokens::of(&client.refresh(&oldest).await.expect(200));
    let last = Tokens::of(&client.refresh(&later).await.expect(200));
    for _ in 0..sessions_wanted {
        sessions.spawn(live_again_and_again(http.clone(), Arc::clone(&tally)));
    }

    let started = Instant::now();
    let random = RandomState::new();
    let (mut kills, mut slowest_start) = (0, Duration::ZERO);
    let mut killed_during = [0; WORKS.len()];
    let rotations = || tally.rotations.load(Relaxed);
    while rotations() < rotations_wanted || kills < kills_wanted {
        tally.reaches(kills * rotations_wanted / kills_wanted).await;
        let span = KILL_AFTER.end - KILL_AFTER.start;
        let after = KILL_AFTER.start + random.hash_one(kills) % span;
        sleep(Duration::from_millis(after)).await;
        for (killed, under_way) in killed_during.iter_mut().zip(&tally.under_way) {
            *killed += usize::from(under_way.load(Relaxed) > 0);
        }
        proxy.kill().await;
        kills += 1;
        let begun = Instant::now();
        proxy.start().await;
        slowest_start = slowest_start.max(begun.elapsed());
        if let Some(ended) = sessions.try_join_next() {
            ended.unwrap();
            panic!("a session has ended by itself");
        }
    }
    tally.is_enough.store(true, Relaxed);
    recovers(&proxy, PATIENCE).await;

    let took = started.elapsed();
    // All of them first: one address may have so many connections and no more.
    for (client, last) in sessions.join_all().await.into_iter().flatten() {
        session_is_whole(&client, &last).await;
    }
    is_bounded(&proxy, before, Duration::from_secs(10)).await;
    let during: Vec<_> = WORKS
        .iter()
        .zip(&killed_during)
        .zip(&tally.done)
        .map(|((work, killed), done)| format!("{work:?} {} ({killed})", done.load(Relaxed)))
        .collect();
    let counts = [
        ("lost", &tally.lost),
        ("forked", &tally.forked),
        ("double-spent", &tally.double_spent),
        ("resurrected", &tally.resurrected),
    ]
    .map(|(what, seen)| (what, seen.lock().unwrap().clone()));
    say(&format!(
        "FI-01 {name}: {kills} kills, {} rotations, {sessions_wanted} sessions; {}; done (kills while under way): {}; \
         {} requests without an answer, {} answered 503, {} codes spent by an unseen answer, \
         {} pairs of refreshes; slowest start {slowest_start:.1?}, {took:.1?}",
        rotations(),
        counts
            .iter()
            .map(|(what, seen)| format!("{} {what}", seen.len()))
            .collect::<Vec<_>>()
            .join(", "),
        during.join(", "),
        tally.unanswered.load(Relaxed),
        tally.unavailable.load(Relaxed),
        tally.spent_unseen.load(Relaxed),
        tally.twins.load(Relaxed),
    ));
    for (what, seen) in counts {
        assert!(seen.is_empty(), "{what}: {seen:#?}");
    }

    // It is not that every token is taken: one from long ago still ends its family.
    let replayed = client.refresh(&oldest).await.expect(400);
    assert_eq!(replayed.json()["error"], "invalid_grant");
    let _ = client.call(&last).await.expect(401);
}

/// Signs in, refreshes and revokes until there was enough of it; ends with the tokens of the last
/// answer, if it has a session then.
async fn live_again_and_again(http: Http, tally: Arc<Tally>) -> Option<(Client, Tokens)> {
    while !tally.is_enough.load(Relaxed) {
        let client = tally.register(&http).await;
        let code = tally.approve(&client).await;
        let Some(mut tokens) = tally.redeem(&client, &code).await else {
            continue;
        };
        for turn in 0..ROTATIONS_PER_LIFE {
            let Some(next) = tally.rotate(&client, &tokens, turn % 5 == 0).await else {
                break;
            };
            tokens = next;
            if tally.is_enough.load(Relaxed) {
                return Some((client, tokens));
            }
        }
        tally.revoke(&client, &tokens, &code).await;
    }
    None
}

impl Tally {
    /// Waits until there were so many rotations, so that the kills are spread over all of them.
    async fn reaches(&self, rotations: usize) {
        let started = Instant::now();
        while self.rotations.load(Relaxed) < rotations {
            assert!(started.elapsed() < PATIENCE, "no rotations any more");
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn register(&self, http: &Http) -> Client {
        let metadata = json!({
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "none",
        });
        let request = || {
            http.request(http::Method::POST, "/register")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(metadata.to_string()))
                .unwrap()
        };
        let (answer, _) = self.insist(Work::Registration, http, request).await;
        Client {
            http: http.clone(),
            id: answer.expect(201).json()["client_id"]
                .as_str()
                .unwrap()
                .to_owned(),
            secret: None,
            redirect_uri: REDIRECT_URI.to_owned(),
        }
    }

    /// A person opens the page and approves, once more while there is no answer: it is one form,
    /// so it is one code.
    async fn approve(&self, client: &Client) -> String {
        let http = &client.http;
        let path = format!("/authorize?{}", client.authorization().encoded());
        let open = || {
            let request = http.request(http::Method::GET, &path);
            request.body(Body::empty()).unwrap()
        };
        let (page, _) = self.insist(Work::Consent, http, open).await;
        let consent = Consent::on(&page.expect(200));
        let approve = || consent.answer(http, PASSPHRASE, "approve");
        let (redirect, _) = self.insist(Work::Consent, http, approve).await;
        Client::code(&redirect.expect(303))
    }

    async fn redeem(&self, client: &Client, code: &str) -> Option<Tokens> {
        let request = || client.http.form("/token", &client.redemption(code));
        let (answer, unanswered) = self.insist(Work::Redemption, &client.http, request).await;
        if answer.status == 200 {
            return Some(Tokens::of(&answer));
        }
        if unanswered > 0 {
            self.spent_unseen.fetch_add(1, Relaxed);
        } else {
            note(&self.lost, &answer);
        }
        None
    }

    /// `None`: the session is lost.
    async fn rotate(&self, client: &Client, tokens: &Tokens, twice: bool) -> Option<Tokens> {
        let fields = client.refreshment(&tokens.refresh_token);
        let request = || client.http.form("/token", &fields);
        let refresh = || self.insist(Work::Rotation, &client.http, request);
        let answer = if twice {
            self.twins.fetch_add(1, Relaxed);
            let ((one, _), (other, _)) = tokio::join!(refresh(), refresh());
            if one.status == 200
                && other.status == 200
                && Tokens::of(&one).refresh_token != Tokens::of(&other).refresh_token
            {
                note(&self.forked, &other);
            }
            if other.status == 200 { one } else { other }
        } else {
            refresh().await.0
        };
        if answer.status != 200 {
            note(&self.lost, &answer);
            return None;
        }
        self.rotations.fetch_add(1, Relaxed);
        let next = Tokens::of(&answer);
        let call = || client.call_request(&next);
        let (called, _) = self.insist(Work::Check, &client.http, call).await;
        if called.status != 200 {
            note(&self.lost, &called);
            return None;
        }
        Some(next)
    }

    /// Revokes, and looks whether the code or any of the tokens is still good for anything.
    async fn revoke(&self, client: &Client, tokens: &Tokens, code: &str) {
        let http = &client.http;
        let fields = client.revocation(&tokens.refresh_token);
        let revoke = || http.form("/revoke", &fields);
        let (answer, _) = self.insist(Work::Revocation, http, revoke).await;
        let _ = answer.expect(200);
        let fields = client.refreshment(&tokens.refresh_token);
        let refresh = || http.form("/token", &fields);
        let (refreshed, _) = self.insist(Work::Check, http, refresh).await;
        let call = || client.call_request(tokens);
        let (called, _) = self.insist(Work::Check, http, call).await;
        for (answer, dead) in [(refreshed, 400), (called, 401)] {
            if answer.status != dead {
                note(&self.resurrected, &answer);
            }
        }
        let redeem = || http.form("/token", &client.redemption(code));
        let (again, _) = self.insist(Work::Check, http, redeem).await;
        if again.status != 400 {
            note(&self.double_spent, &again);
        }
    }

    /// Sends the same until there is an answer; says how many times there was none.
    async fn insist(
        &self,
        work: Work,
        http: &Http,
        request: impl Fn() -> Request<Body>,
    ) -> (Answer, usize) {
        let started = Instant::now();
        let mut unanswered = 0;
        loop {
            self.under_way[work as usize].fetch_add(1, Relaxed);
            let sent = http.try_send(request()).await;
            self.under_way[work as usize].fetch_sub(1, Relaxed);
            match sent {
                Ok(answer) if answer.status != 503 => {
                    self.done[work as usize].fetch_add(1, Relaxed);
                    return (answer, unanswered);
                }
                Ok(_) => self.unavailable.fetch_add(1, Relaxed),
                Err(_) => self.unanswered.fetch_add(1, Relaxed),
            };
            unanswered += 1;
            assert!(started.elapsed() < PATIENCE, "no answer any more");
            sleep(PAUSE).await;
        }
    }
}

fn note(seen: &Mutex<Vec<String>>, answer: &Answer) {
    seen.lock().unwrap().push(format!("{answer:?}"));
}
