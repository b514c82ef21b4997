//! Z13: bytes cross in both directions as they came, piece by piece. The proxy never splits events,
//! so there is no splitter to try: what is tried is that nothing of ours touches a body.
#![no_main]

use std::convert::Infallible;

use arbitrary::Arbitrary;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use fuzz::{
    HOME, Stage, block_on,
    client::{McpClient, Tokens},
    patient_server,
};
use http::{Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    request: Vec<Vec<u8>>,
    response: Vec<Vec<u8>>,
    is_event_stream: bool,
}

struct Prepared {
    client: McpClient,
    tokens: Tokens,
}

thread_local! {
    static STAGE: Stage<Prepared> = const { Stage::new(prepare) };
}

fn prepare() -> Prepared {
    block_on(async {
        let client = patient_server(&[("one", "/mcp")]).mcp_client().await;
        let tokens = client.sign_in().await;
        Prepared { client, tokens }
    })
}

fn in_pieces(pieces: &[Vec<u8>]) -> Body {
    let frames = pieces
        .iter()
        .map(|piece| Ok::<_, Infallible>(Frame::data(piece.clone().into())));
    Body::new(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())))
}

fuzz_target!(
    |input: Input| STAGE.with(|stage| stage.judge(|prepared| block_on(async {
        let Prepared { client, tokens } = prepared;
        let upstream = &client.server.upstream;
        let content_type = if input.is_event_stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        upstream.answers(
            Response::builder()
                .header(header::CONTENT_TYPE, content_type)
                .body(in_pieces(&input.response))
                .expect("a response like any other"),
        );
        let (head, _) = client.call_request(tokens).into_parts();
        let request = http::Request::from_parts(head, in_pieces(&input.request));
        let response = client.server.front.answer(request, HOME).await;
        if response.status() == 400 {
            // A member that decides is there twice.
            return;
        }
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
        let mut body = response.into_body();
        let mut pieces: Vec<Bytes> = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.expect("nothing breaks off");
            pieces.extend(frame.into_data());
        }
        assert!(pieces.iter().eq(input.response.iter()));
        assert_eq!(*upstream.last().body(), input.request.concat());
    })))
);
