//! Requests that are seconds or minutes apart.

use super::support::{
    client::{Client, Http, Tokens},
    fake_time::FakeTime,
    proxy::Proxy,
    upstream::Upstream,
};

/// RC-05: the whole table but for the seconds at the window's very edge. Those are in the tests of
/// the protocol, whose clock stands still meanwhile.
#[tokio::test]
async fn rc_05_two_machines_of_one_client_refresh_apart_in_time() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Successor {
        Unused,
        AccessTokenUsed,
        RefreshTokenUsed,
    }
    use Successor::{AccessTokenUsed, RefreshTokenUsed, Unused};
    let Some(time) = FakeTime::new() else { return };
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
    time.rules(&mut proxy);
    proxy.start().await;
    let client = Client::register(&Http::to(proxy.address)).await;
    // The program's clock does not go back, so each case begins where the last one ended.
    let mut now = 0;
    for successor in [Unused, AccessTokenUsed, RefreshTokenUsed] {
        for seconds in [1, 30, 90, 125, 300] {
            let first = client.sign_in().await;
            let refreshed = client.refresh(&first).await.expect(200);
            let second = Tokens::of(&refreshed);
            match successor {
                Unused => {}
                AccessTokenUsed => drop(client.call(&second).await.expect(200)),
                RefreshTokenUsed => drop(client.refresh(&second).await.expect(200)),
            }
            now += seconds;
            time.is_off_by(now);
            let answer = client.refresh(&first).await;
            let is_repeated = match successor {
                Unused => true,
                AccessTokenUsed => seconds < 120,
                RefreshTokenUsed => false,
            };
            if is_repeated {
                let again = Tokens::of(&answer.expect(200));
                assert_eq!(again.refresh_token, second.refresh_token);
                let _ = client.refresh(&again).await.expect(200);
            } else {
                let _ = answer.expect(400);
                let _ = client.refresh(&second).await.expect(400);
                let _ = client.call(&second).await.expect(401);
            }
        }
    }
    proxy.stop().await;
}
