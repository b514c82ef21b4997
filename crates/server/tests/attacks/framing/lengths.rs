//! Where a request ends (N-HD-01 to N-HD-09).

use std::sync::Arc;

use super::CHUNKED;
use crate::{
    refusal::Refusal::{Bare, OAuth},
    support::UPSTREAM_KEY,
    world::World,
};

/// With both, it is chunked, and the last of its connection (RFC 9112 §6.1).
async fn both_framings(world: &World, lines: &str) {
    let (client, tokens) = world.connected().await;
    let hidden = world.call_bytes(&tokens, "x-hidden: 1\r\ncontent-length: 0\r\n", "");
    let content = format!("{CHUNKED}{hidden}");
    for length in [0, 5, CHUNKED.len(), content.len()] {
        let before = world.upstream.begun();
        let lines = lines.replace("{}", &length.to_string());
        let answers = world
            .answers_to(world.call_bytes(&tokens, &lines, &content), 2)
            .await;
        assert!(
            matches!(&answers[..], [Some(one), None] if one.status == 200),
            "{answers:#?}"
        );
        assert_eq!(world.upstream.begun(), before + 1);
        assert_eq!(world.upstream.last().body(), "abc");
        // Framed anew: what the client said of its length is gone.
        assert_eq!(world.upstream.last().headers()["content-length"], "3");
    }
    world.serves(&client, &tokens).await;
}

pub async fn length_first(world: Arc<World>) {
    both_framings(
        &world,
        "content-length: {}\r\ntransfer-encoding: chunked\r\n",
    )
    .await;
}

pub async fn coding_first(world: Arc<World>) {
    both_framings(
        &world,
        "transfer-encoding: chunked\r\ncontent-length: {}\r\n",
    )
    .await;
}

pub async fn odd_chunked(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for value in [
        "chunked\u{b}",
        "\u{b}chunked",
        "chunked;x",
        "chun ked",
        "\"chunked\"",
        "chunked,",
        "chunked\r\n ,x",
    ] {
        let bytes = world.call_bytes(&tokens, &format!("transfer-encoding: {value}\r\n"), CHUNKED);
        world.refused_bytes(bytes, &Bare(400)).await;
    }
    // Blanks around a value and its case say nothing.
    for value in ["  chunked", "\tchunked", "chunked  ", "Chunked", "CHUNKED"] {
        let bytes = world.call_bytes(&tokens, &format!("transfer-encoding:{value}\r\n"), CHUNKED);
        let answers = world.answers_to(bytes, 1).await;
        assert!(
            matches!(&answers[..], [Some(one)] if one.status == 200),
            "{answers:#?}"
        );
        assert_eq!(world.upstream.last().body(), "abc");
    }
    world.serves(&client, &tokens).await;
}

pub async fn two_codings(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for (first, second) in [
        ("chunked", "identity"),
        ("chunked", "x"),
        ("chunked", ""),
        ("chunked", "gzip"),
        ("identity", "identity"),
        ("chunked", "chunked, identity"),
    ] {
        let lines = format!("transfer-encoding: {first}\r\ntransfer-encoding: {second}\r\n");
        world
            .refused_bytes(world.call_bytes(&tokens, &lines, CHUNKED), &Bare(400))
            .await;
    }
    // With `chunked` at the end there is content, and whoever is in front may see it end elsewhere:
    // nothing behind it is taken for a request.
    let hidden = world.call_bytes(&tokens, "content-length: 0\r\n", "");
    let content = format!("{CHUNKED}{hidden}");
    for codings in ["chunked", "identity", "gzip", "x", "", ",", "chunked;x"]
        .into_iter()
        .flat_map(|first| {
            let name = "transfer-encoding: ";
            [
                format!("{name}{first}\r\n{name}chunked\r\n"),
                format!("{name}{first}\r\n{name}CHUNKED\r\n"),
                format!("{name}{first}\r\nx: y\r\n{name}chunked\r\n"),
                format!("{name}{first}, chunked\r\n"),
                format!("{name}{first},,\tchunked\r\n"),
                format!("{name}{first}\r\n{name}{first}\r\n{name}chunked\r\n"),
            ]
        })
    {
        let bytes = world.call_bytes(&tokens, &codings, &content);
        let answers = world.unchanged(world.answers_to(bytes, 2)).await;
        let [Some(refused), None] = &answers[..] else {
            panic!("{codings:?}: {answers:#?}");
        };
        OAuth(400, "invalid_request").check(refused, &world.issuer);
    }
    // The twin: once.
    let bytes = world.call_bytes(&tokens, "transfer-encoding: chunked\r\n", CHUNKED);
    let answers = world.answers_to(bytes, 1).await;
    assert!(matches!(&answers[..], [Some(one)] if one.status == 200));
    assert_eq!(world.upstream.last().body(), "abc");
    world.serves(&client, &tokens).await;
}

pub async fn old_and_chunked(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let call = |lines, content| {
        let bytes = world.call_bytes(&tokens, lines, content);
        bytes.replacen("HTTP/1.1", "HTTP/1.0", 1)
    };
    for lines in [
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\nconnection: keep-alive\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
    ] {
        world.refused_bytes(call(lines, CHUNKED), &Bare(400)).await;
    }
    let answers = world
        .answers_to(call("content-length: 3\r\n", "abc"), 2)
        .await;
    assert!(
        matches!(&answers[..], [Some(one), None] if one.status == 200),
        "{answers:#?}"
    );
    world.serves(&client, &tokens).await;
}

/// A body that breaks may have begun to reach the upstream, but never does as a whole.
pub async fn odd_chunks(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let hidden = world.call_bytes(&tokens, "content-length: 0\r\n", "");
    let extension = "x".repeat(1 << 20);
    for content in [
        format!("3;{extension}\r\nabc\r\n0\r\n\r\n"),
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n".to_owned(),
        "-3\r\nabc\r\n0\r\n\r\n".to_owned(),
        "0x3\r\nabc\r\n0\r\n\r\n".to_owned(),
        "3\nabc\n0\n\n".to_owned(),
        "3\rabc\r0\r\r".to_owned(),
        "\r\nabc\r\n0\r\n\r\n".to_owned(),
        "2\r\nabc\r\n0\r\n\r\n".to_owned(),
        "3\r\nabcd\r\n0\r\n\r\n".to_owned(),
        "3\r\nabc0\r\n\r\n".to_owned(),
        format!("3\r\nabc\r\n0\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)),
    ] {
        let before = world.upstream.received().len();
        let bytes = world.call_bytes(
            &tokens,
            "transfer-encoding: chunked\r\n",
            &format!("{content}{hidden}"),
        );
        let answers = world.answers_to(bytes, 2).await;
        let shown = &content[..content.len().min(40)];
        let good = answers.iter().flatten().any(|answer| answer.status == 200);
        assert!(
            !good && matches!(answers.last(), Some(None)),
            "{shown:?}: {answers:#?}"
        );
        assert_eq!(world.upstream.received().len(), before, "{shown:?}");
    }
    // Nothing of a trailer becomes a header.
    let content = "3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nx-evil: 1\r\nmcp-name: evil\r\n\r\n";
    let lines = "transfer-encoding: chunked\r\ntrailer: authorization\r\n";
    let answers = world
        .answers_to(world.call_bytes(&tokens, lines, content), 1)
        .await;
    assert!(
        matches!(&answers[..], [Some(one)] if one.status == 200),
        "{answers:#?}"
    );
    let got = world.upstream.last();
    assert_eq!(
        got.headers()["authorization"],
        format!("Bearer {UPSTREAM_KEY}")
    );
    for name in ["x-evil", "mcp-name", "trailer"] {
        assert!(!got.headers().contains_key(name), "{name}");
    }
    world.serves(&client, &tokens).await;
}
