//! What holds after every experiment, each by its name.

use std::{fs, time::Duration};

use axum::body::Body;
use http::{Method, Request};
use tokio::time::{Instant, sleep};

use super::{
    is_root,
    support::{
        client::{Answer, Client, Http, Tokens},
        proxy::Proxy,
    },
};

/// I1: whoever holds the last refresh token that was delivered, or would have been had the answer
/// arrived, can refresh.
#[track_caller]
pub(crate) fn no_session_is_lost(refreshed: &Answer) -> Tokens {
    assert_eq!(
        refreshed.status, 200,
        "I1, a session is lost: {refreshed:#?}"
    );
    Tokens::of(refreshed)
}

/// I2: exactly one generation of a family is live, so two refreshes at the same time are given
/// the same successor.
#[track_caller]
pub(crate) fn no_fork(one: &Tokens, other: &Tokens) {
    assert_eq!(
        one.refresh_token, other.refresh_token,
        "I2, a family has two live generations"
    );
}

/// I3: a code yields one set of tokens at most.
#[track_caller]
pub(crate) fn no_double_spend(redeemed_again: &Answer) {
    assert_eq!(
        redeemed_again.status, 400,
        "I3, a code was spent twice: {redeemed_again:#?}"
    );
    assert_eq!(redeemed_again.json()["error"], "invalid_grant");
}

/// I4 and I5: what was revoked stays revoked, and none of its tokens works.
pub(crate) async fn no_resurrection(client: &Client, revoked: &Tokens) {
    let fields = client.refreshment(&revoked.refresh_token);
    let refresh = || client.http.form("/token", &fields);
    let refreshed = answered(&client.http, refresh).await;
    assert_eq!(
        refreshed.status, 400,
        "I4, a grant came back: {refreshed:#?}"
    );
    let called = answered(&client.http, || client.call_request(revoked)).await;
    assert_eq!(
        called.status, 401,
        "I5, a token works without a grant: {called:#?}"
    );
}

/// I1, I2 and I6, for a session whose last answer was a success: the client is known, its access
/// token works, and its refresh token is the one that is live.
pub(crate) async fn session_is_whole(client: &Client, last: &Tokens) -> Tokens {
    let called = answered(&client.http, || client.call_request(last)).await;
    assert_eq!(
        called.status, 200,
        "I6, a success was not kept: {called:#?}"
    );
    let fields = client.refreshment(&last.refresh_token);
    let refresh = || answered(&client.http, || client.http.form("/token", &fields));
    let (one, other) = tokio::join!(refresh(), refresh());
    let (one, other) = (no_session_is_lost(&one), no_session_is_lost(&other));
    no_fork(&one, &other);
    let _ = client.call(&one).await.expect(200);
    let _ = client.opens_consent().await;
    one
}

/// I7, for one request: who is told to come again is served within five seconds.
pub(crate) async fn answered(http: &Http, request: impl Fn() -> Request<Body>) -> Answer {
    let started = Instant::now();
    loop {
        let answer = http.send(request()).await;
        if !answer.status.is_server_error() || started.elapsed() > Duration::from_secs(5) {
            return answer;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// I7: it is ready again without anybody's help, within this time.
pub(crate) async fn recovers(proxy: &Proxy, within: Duration) {
    let http = Http::to(proxy.address);
    let started = Instant::now();
    loop {
        let request = http.request(Method::GET, "/ready");
        let request = request.body(Body::empty()).unwrap();
        if http
            .try_send(request)
            .await
            .is_ok_and(|answer| answer.status == 200)
        {
            return;
        }
        assert!(
            started.elapsed() < within,
            "I7, it does not recover: {}",
            proxy.output()
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// What a process uses of what is scarce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    pub(crate) files: usize,
    pub(crate) resident_kib: u64,
}

impl Footprint {
    pub(crate) fn of(proxy: &Proxy) -> Self {
        // The program keeps its memory to itself, and so the kernel shows its files to root only;
        // to anybody else it is as if there were none.
        let files = fs::read_dir(format!("/proc/{}/fd", proxy.id()));
        assert!(files.is_ok() || !is_root());
        Self {
            files: files.map_or(0, Iterator::count),
            resident_kib: proxy.resident_kib(),
        }
    }
}

/// I8: files and memory are as before, but for what is kept at hand. Files are given back within
/// this time.
pub(crate) async fn is_bounded(proxy: &Proxy, before: Footprint, within: Duration) {
    /// Connections that are kept for the next request, and those of a grown pool.
    const KEPT: usize = 64 + 16;
    const MEMORY_KIB: u64 = 128 * 1024;
    let started = Instant::now();
    loop {
        let now = Footprint::of(proxy);
        assert!(
            now.resident_kib < before.resident_kib + MEMORY_KIB,
            "I8, memory grew: {before:?}, {now:?}"
        );
        if now.files <= before.files + KEPT {
            return;
        }
        assert!(
            started.elapsed() < within,
            "I8, files stay open: {before:?}, {now:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}
