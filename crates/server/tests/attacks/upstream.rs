//! An upstream that is hostile or broken (UP).

use std::sync::Arc;

use axum::body::Body;
use http::Response;

use super::{
    case::{Case, case},
    refusal::Refusal::JsonRpc,
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![case(
        "N-UP-01",
        "the upstream demands a sign-in of its own",
        demands_sign_in,
    )]
}

async fn demands_sign_in(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    world.serves(&client, &tokens).await;
    let before = world.records().await;
    for status in [401, 403] {
        let challenge = "Bearer resource_metadata=\"https://evil.example/\"";
        let answer = Response::builder().status(status);
        let answer = answer.header("www-authenticate", challenge);
        world
            .upstream
            .answers(async { answer.body(Body::from("evil")).unwrap() });
        let answer = client.call(&tokens).await;
        JsonRpc(502).check(&answer, &world.issuer);
        assert!(!answer.headers.contains_key("www-authenticate"));
        assert!(!answer.text().contains("evil"));
    }
    assert_eq!(world.records().await, before);
    world.serves(&client, &tokens).await;
}
