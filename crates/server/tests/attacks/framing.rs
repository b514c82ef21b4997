//! HTTP framing and hop-by-hop headers (HD).

use std::sync::Arc;

use super::{
    case::{Case, case},
    refusal::Refusal::Bare,
    support::client::{Client, Tokens},
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![case(
        "N-HD-06",
        "`Content-Length` twice with different values",
        two_lengths,
    )]
}

impl World {
    /// A call as bytes, with these lines in its head.
    fn call_bytes(&self, tokens: &Tokens, lines: &str, content: &str) -> String {
        let (host, token) = (self.proxy.address, &tokens.access_token);
        format!(
            "POST /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             {lines}\r\n{content}"
        )
    }
}

async fn two_lengths(world: Arc<World>) {
    let client: Client = world.client().await;
    let tokens = client.sign_in().await;
    for lines in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 4\r\ncontent-length: 3\r\n",
        "content-length: 3, 4\r\n",
    ] {
        let bytes = world.call_bytes(&tokens, lines, "{} ");
        world.refused_bytes(bytes, &Bare(400)).await;
    }
    world.serves(&client, &tokens).await;
}
