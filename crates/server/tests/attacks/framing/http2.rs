//! HTTP/2 (N-HD-20 to N-HD-23).

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    support::{
        UPSTREAM_KEY,
        client::{Http, Tokens},
        frames::{
            CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw,
            SETTINGS, WINDOW_UPDATE, field, fields, frame,
        },
    },
    world::World,
};

/// Longer than the proxy takes to drop a connection.
const PATIENCE: Duration = Duration::from_mins(1);

/// A call over HTTP/2 as header fields.
fn http2_call(world: &World, tokens: &Tokens, more: &[(&str, &str)]) -> Vec<u8> {
    let authority = world.proxy.address.to_string();
    let bearer = format!("Bearer {}", tokens.access_token);
    let all = [
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", &authority),
            (":path", "/mcp"),
            ("authorization", &bearer),
        ],
        more,
    ];
    fields(&all.concat())
}

async fn http2_connection(http: &Http) -> Raw {
    Raw::begin(http.connect().await.unwrap()).await
}

pub async fn odd_http2(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let host = world.proxy.address.to_string();
    for more in [
        ("host", "evil.example"),
        ("x", "a\r\nb: c"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x\r\ny", "z"),
        ("X-Upper", "x"),
        ("x y", "z"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("keep-alive", "x"),
        ("proxy-connection", "x"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        (":path", "/other"),
        (":authority", "evil.example"),
        (":other", "x"),
    ] {
        let attempt = async {
            let mut raw = http2_connection(&world.http).await;
            let block = http2_call(&world, &tokens, &[("y", "z"), more]);
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
                .await;
            loop {
                match raw.next().await {
                    // Not 200, which is one byte (RFC 7541, appendix A).
                    Some((HEADERS, _, 1, block)) => break assert_ne!(block[0], 0x88, "{more:?}"),
                    Some((RST_STREAM | GOAWAY, ..)) | None => break,
                    Some(_) => {}
                }
            }
        };
        world.unchanged(attempt).await;
    }
    for more in [&[][..], &[("host", &*host)], &[("te", "trailers")]] {
        let mut raw = http2_connection(&world.http).await;
        let block = http2_call(&world, &tokens, more);
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
            .await;
        assert_eq!(raw.next_of(HEADERS).await.2[0], 0x88, "{more:?}");
        let got = world.upstream.last();
        assert_eq!(
            got.headers()["authorization"],
            format!("Bearer {UPSTREAM_KEY}")
        );
    }
    world.serves(&client, &tokens).await;
}

/// What a flood begins with and what it repeats, given a block of headers and how often that was.
pub struct Flood {
    opening: fn(&[u8]) -> Vec<u8>,
    repeated: fn(&[u8], u32) -> Vec<u8>,
}

pub const ENDLESS_HEADERS: &[Flood] = &[
    Flood {
        opening: |block| frame(HEADERS, 0, 1, block),
        repeated: |_, _| frame(CONTINUATION, 0, 1, &[]),
    },
    Flood {
        opening: |block| frame(HEADERS, 0, 1, block),
        repeated: |_, _| frame(CONTINUATION, 0, 1, &fields(&[("x", &"y".repeat(1000))])),
    },
];

pub const RESETS: &[Flood] = &[
    Flood {
        opening: |_| Vec::new(),
        repeated: |block, number| {
            let stream = number * 2 + 1;
            let whole = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
            [whole, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        },
    },
    // The server is made to reset, by a window that grows by nothing.
    Flood {
        opening: |_| Vec::new(),
        repeated: |block, number| {
            let stream = number * 2 + 1;
            let whole = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
            [whole, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
        },
    },
];

const SMALL_FRAMES: &[Flood] = &[
    Flood {
        opening: |_| Vec::new(),
        repeated: |_, _| frame(PING, 0, 0, &[0; 8]),
    },
    Flood {
        opening: |_| Vec::new(),
        repeated: |_, _| frame(SETTINGS, 0, 0, &[]),
    },
    Flood {
        opening: |block| frame(HEADERS, END_HEADERS, 1, block),
        repeated: |_, _| frame(DATA, 0, 1, &[]),
    },
    Flood {
        opening: |block| frame(HEADERS, END_HEADERS, 1, block),
        repeated: |_, _| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
    },
];

/// Each flood is of requests without a token, so none of them may reach anybody.
pub async fn floods(world: Arc<World>, floods: &'static [Flood]) {
    // More than the kernel would hold for a server that reads no more.
    const TIMES: u32 = 1_000_000;
    let (client, tokens) = world.connected().await;
    let block = http2_call(&world, &tokens, &[]);
    let authorized = "authorization".len() + 2 + "Bearer ".len() + 1 + tokens.access_token.len();
    let block = &block[..block.len() - authorized];
    let before = world.proxy.resident_kib();
    for (number, Flood { opening, repeated }) in floods.iter().enumerate() {
        let attempt = async {
            let mut raw = http2_connection(&world.http).await;
            raw.send(&opening(block)).await;
            let frames = (0..TIMES).map(|times| repeated(block, times));
            timeout(PATIENCE, raw.flood(frames)).await.unwrap()
        };
        let sent = world.unchanged(attempt).await;
        assert!(sent < TIMES as usize, "flood {number} went on");
        world.serves(&client, &tokens).await;
    }
    let grown = world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
}

pub async fn floods_bombs_and_no_room(world: Arc<World>) {
    floods(Arc::clone(&world), SMALL_FRAMES).await;
    let (client, tokens) = world.connected().await;
    let before = world.proxy.resident_kib();
    // One large header that is remembered, and a byte for each time it is there again.
    let mut bomb = http2_call(&world, &tokens, &[]);
    let remembered = field("x", &"y".repeat(3_500));
    bomb.extend([&[0x40], &remembered[1..], &[0xbe; 10_000]].concat());
    let attempt = async {
        let mut raw = http2_connection(&world.http).await;
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await;
        loop {
            match raw.next().await {
                Some((HEADERS, _, 1, block)) => break assert_ne!(block[0], 0x88),
                Some((RST_STREAM | GOAWAY, ..)) | None => break,
                Some(_) => {}
            }
        }
    };
    world.unchanged(attempt).await;
    let grown = world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    world.serves(&client, &tokens).await;

    let world = world.another("limits.write_timeout = \"2s\"").await;
    let (client, tokens) = world.connected().await;
    let mut raw = http2_connection(&world.http).await;
    // Not a byte of any answer may be sent.
    raw.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    let block = http2_call(&world, &tokens, &[]);
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
        .await;
    loop {
        match raw.next().await {
            Some((RST_STREAM, _, 1, _) | (GOAWAY, ..)) | None => break,
            Some((kind, ..)) => assert_ne!(kind, DATA),
        }
    }
    world.serves(&client, &tokens).await;
}
