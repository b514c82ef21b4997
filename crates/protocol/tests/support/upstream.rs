//! An upstream that answers as the test tells it, and remembers what it got.

use std::{collections::VecDeque, sync::Mutex};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, header, request::Parts};
use http_body_util::BodyExt;
use protocol::{
    endpoint::{extract::Permit, mcp::trial::Question},
    ports::{Upstream, UpstreamError},
};

type Outcome = Result<Response<Body>, UpstreamError>;

/// Answers with what was queued, else with a small JSON text.
#[derive(Default)]
pub struct FakeUpstream {
    queued: Mutex<VecDeque<Outcome>>,
    received: Mutex<Vec<Request<Bytes>>>,
    callers: Mutex<Vec<[String; 3]>>,
    told: Mutex<VecDeque<Outcome>>,
    asked: Mutex<Vec<Request<Bytes>>>,
}

impl FakeUpstream {
    /// Answers the next request with this.
    pub fn answers(&self, response: Response<Body>) {
        self.queued.lock().unwrap().push_back(Ok(response));
    }

    /// Fails the next request with this.
    pub fn fails(&self, error: UpstreamError) {
        self.queued.lock().unwrap().push_back(Err(error));
    }

    /// Answers the next question of the proxy's own with this.
    pub fn tells(&self, outcome: Outcome) {
        self.told.lock().unwrap().push_back(outcome);
    }

    /// Every question of the proxy's own so far, with its body.
    pub fn asked(&self) -> Vec<Request<Bytes>> {
        self.asked.lock().unwrap().clone()
    }

    /// Every request so far, with its body.
    pub fn received(&self) -> Vec<Request<Bytes>> {
        self.received.lock().unwrap().clone()
    }

    /// For whom each request was: person, client, and the upstream that they called.
    pub fn callers(&self) -> Vec<[String; 3]> {
        self.callers.lock().unwrap().clone()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Request<Bytes> {
        self.received().pop().expect("the upstream got a request")
    }
}

#[async_trait]
impl Upstream for FakeUpstream {
    async fn send(&self, permit: Permit, head: &Parts, body: Body) -> Outcome {
        let caller = [
            permit.subject().to_owned(),
            permit.client_id().to_string(),
            permit.upstream().name.clone(),
        ];
        drop(permit);
        self.callers.lock().unwrap().push(caller);
        let body = body
            .collect()
            .await
            .map_err(|error| UpstreamError::RequestBody(error.into_inner()))?
            .to_bytes();
        self.received
            .lock()
            .unwrap()
            .push(Request::from_parts(head.clone(), body));
        self.queued.lock().unwrap().pop_front().unwrap_or_else(|| {
            Ok(Response::builder()
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#))
                .unwrap())
        })
    }

    /// Knows nothing by itself, like a server that has no such method.
    async fn ask(&self, question: Question) -> Outcome {
        let (parts, body) = question.into_request().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let request = Request::from_parts(parts, body);
        self.asked.lock().unwrap().push(request);
        let told = self.told.lock().unwrap().pop_front();
        told.unwrap_or_else(|| {
            let nothing = Response::builder().status(405).body(Body::empty());
            Ok(nothing.unwrap())
        })
    }
}
