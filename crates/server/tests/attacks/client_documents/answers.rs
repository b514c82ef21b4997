//! What hosts answer with instead of documents.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{TRIED, opening, reason};
use crate::{
    case::Missing,
    internet::{Certificate, Does, with_head},
    refusal::Refusal::Page,
    world::World,
};

/// For everything, and what a busy machine may add.
const FIVE_SECONDS: Duration = Duration::from_secs(8);

pub async fn redirects(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let elsewhere = internet.site();
    let site = internet.site();
    let client = world.client_of(&site);
    let decoy = format!("http://{}/client", world.decoy.address);
    for status in [300, 301, 302, 303, 307, 308] {
        for location in [
            &*elsewhere.id(),
            &site.id(),
            "/client",
            "//x.example",
            &decoy,
            "",
        ] {
            let head = format!("{status} Elsewhere\r\nlocation: {location}");
            site.does(Does::Answers(with_head(&head, &site.document())));
            let page = world.refuses_client(&client).await;
            assert!(page.contains(TRIED), "{page}");
        }
    }
    let refresh = format!("0; url={}", elsewhere.id());
    let page = format!("<meta http-equiv=refresh content='{refresh}'>");
    let html = "200 OK\r\ncontent-type: text/html";
    for (head, body) in [
        (html.to_owned(), &*page),
        (
            format!("{html}; charset=utf-8\r\nrefresh: {refresh}"),
            &page,
        ),
        (format!("200 OK\r\nrefresh: {refresh}"), ""),
        (format!("200 OK\r\nrefresh: {refresh}"), "{}"),
        (format!("200 OK\r\nlocation: {}", elsewhere.id()), "{}"),
        (
            format!("200 OK\r\nlink: <{}>; rel=canonical", elsewhere.id()),
            "{}",
        ),
    ] {
        site.does(Does::Answers(with_head(&head, &body)));
        world.refuses_client(&client).await;
    }
    assert!(elsewhere.connections().is_empty());
    assert!(site.requests().iter().all(|path| path == "/client"));
    site.publishes(&site.document());
    world.lets_in(&client, &client.authorization()).await;
    Ok(())
}

pub async fn other_statuses(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    for status in [
        201, 202, 203, 204, 205, 206, 226, 304, 400, 401, 403, 404, 410, 429, 500, 502, 503, 599,
        999,
    ] {
        let site = internet.site();
        let client = world.client_of(&site);
        // It says that it may be kept, too.
        let head =
            format!("{status} X\r\ncache-control: max-age=3600\r\ncontent-type: application/json");
        site.does(Does::Answers(with_head(&head, &site.document())));
        for _ in 0..2 {
            let page = world.refuses_client(&client).await;
            assert!(page.contains(TRIED), "{status}: {page}");
        }
        assert_eq!(site.requests().len(), 2, "{status}");
        site.publishes(&site.document());
        world.knows(&client).await;
        assert_eq!(site.requests().len(), 3, "{status}");
    }
    let site = internet.site();
    let client = world.client_of(&site);
    world.lets_in(&client, &client.authorization()).await;
    Ok(())
}

pub async fn hostile(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let mut sites = Vec::new();
    for number in 0..hostile_answers(&json!({})).len() {
        let site = internet.site();
        site.does(hostile_answers(&site.document()).swap_remove(number));
        sites.push((format!("answer {number}"), site));
    }
    for certificate in [
        Certificate::OfAnother,
        Certificate::Expired,
        Certificate::SelfSigned,
    ] {
        sites.push((format!("{certificate:?}"), internet.site_with(certificate)));
    }
    // All at once, since some take their time.
    let attempts = sites.iter().map(|(what, site)| {
        let (what, client) = (what.clone(), world.client_of(site));
        TaskTracker::new().spawn(async move {
            let begun = Instant::now();
            let page = client.http.send(opening(&client)).await;
            (what, page, begun.elapsed())
        })
    });
    let attempts: Vec<_> = attempts.collect();
    let refuse_all = async {
        for attempt in attempts {
            let (what, page, took) = attempt.await.unwrap();
            assert_eq!(page.status, 400, "{what}");
            Page(400).check(&page, &world.issuer);
            assert!(reason(&page).contains(TRIED), "{what}: {page:?}");
            assert!(took < FIVE_SECONDS, "{what}: {took:?}");
        }
    };
    world.unchanged(refuse_all).await;
    for (what, site) in &sites {
        assert_eq!(site.connections(), [site.address], "{what}");
        if !what.starts_with("answer") {
            assert_eq!(site.requests(), [""; 0], "{what}");
        }
    }
    // As long as it may be, in each way of sending it.
    let ways: [fn(&str) -> Vec<u8>; 4] = [
        |body: &str| with_head(JSON, &body),
        chunked,
        |body| format!("HTTP/1.1 {JSON}\r\n\r\n{body}").into(),
        |body| with_head(&format!("{JSON}\r\ncontent-encoding: identity"), &body),
    ];
    for send in ways {
        let site = internet.site();
        site.does(Does::Answers(send(&format!(
            "{:<5120}",
            site.document().to_string()
        ))));
        let client = world.client_of(&site);
        world.lets_in(&client, &client.authorization()).await;
    }
    Ok(())
}

const JSON: &str = "200 OK\r\ncontent-type: application/json";

/// In place of `document`.
fn hostile_answers(document: &Value) -> Vec<Does> {
    let whole = document.to_string();
    let too_long = format!("{whole:<5121}");
    let head = |more: &str| format!("HTTP/1.1 {JSON}{more}\r\n\r\n").into_bytes();
    let endless = |more: &str, body: &str| [head(more), body.into()].concat();
    let packed = |coding: &str| {
        let head = format!("{JSON}\r\ncontent-encoding: {coding}");
        Does::Answers(with_head(&head, document))
    };
    let many = "x: y\r\n".repeat(200);
    let long = "y".repeat(32 * 1024);
    vec![
        Does::Answers(with_head(JSON, &too_long)),
        Does::Answers(chunked(&too_long)),
        Does::Answers(endless("", &too_long)),
        Does::Answers(head("\r\ncontent-length: 99999999999")),
        Does::Answers(head("\r\ncontent-length: 99999999999999999999999")),
        Does::Floods(endless("", &" ".repeat(64))),
        Does::Floods(endless(
            "\r\ntransfer-encoding: chunked",
            &"1\r\n \r\n".repeat(16),
        )),
        Does::Floods(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(8)),
        packed("gzip"),
        packed("br"),
        packed("zstd"),
        packed("deflate"),
        packed("identity, gzip"),
        // One byte a second: of the document, of the head, and instead of TLS.
        Does::Drips(head("\r\ncontent-length: 1000")),
        Does::Drips(endless("", &whole)),
        Does::Drips(format!("HTTP/1.1 {JSON}\r\nx: ").into()),
        Does::Publishes(Duration::from_secs(30)),
        Does::Nothing,
        Does::NoTls,
        Does::Resets,
        Does::Answers(vec![]),
        Does::Answers(head("\r\ncontent-length: 1000")),
        Does::Answers(endless("\r\ntransfer-encoding: chunked", "fff\r\n{")),
        Does::Answers(format!("HTTP/1.1 {JSON}\r\n{many}\r\n{whole}").into()),
        Does::Answers(format!("HTTP/1.1 {JSON}\r\nx: {long}\r\n\r\n{whole}").into()),
        Does::Answers(format!("HTTP/9.9 {JSON}\r\n\r\n{whole}").into()),
        Does::Answers(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        Does::Answers(whole.into_bytes()),
    ]
}

fn chunked(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {JSON}\r\ntransfer-encoding: chunked\r\n\r\n");
    format!("{head}{length:x}\r\n{body}\r\n0\r\n\r\n").into()
}
