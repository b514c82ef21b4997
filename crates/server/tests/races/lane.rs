//! A connection that is kept for many requests, so that a hundred of them can be sent at the same
//! moment, round after round.

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Mutex, task::JoinSet, time::sleep};
use tokio_util::task::TaskTracker;

use super::support::client::Answer;

/// How often, and how soon, who was told to come again does.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// One connection to one process.
struct Lane {
    to: SocketAddr,
    sender: Mutex<Option<SendRequest<Body>>>,
    tasks: TaskTracker,
}

/// All connections of a test, to one process after the other.
pub(crate) struct Lanes(Vec<std::sync::Arc<Lane>>);

impl Lanes {
    pub(crate) fn to(processes: &[SocketAddr], number: usize) -> Self {
        let lane = |to: &SocketAddr| Lane {
            to: *to,
            sender: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        let lanes = processes.iter().cycle().take(number).map(lane);
        Self(lanes.map(std::sync::Arc::new).collect())
    }

    /// Sends all of these at the same time, each on a connection of its own; the answers are in
    /// the same order.
    ///
    /// Who is told that the store did not answer comes again, as on a machine with much else to do.
    pub(crate) async fn send(&self, requests: Vec<Request<Body>>) -> Vec<Answer> {
        assert!(requests.len() <= self.0.len());
        let mut racing = JoinSet::new();
        for (number, (request, lane)) in requests.into_iter().zip(&self.0).enumerate() {
            let lane = std::sync::Arc::clone(lane);
            racing.spawn(async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let again = || Request::from_parts(head.clone(), Body::from(body.clone()));
                let mut answer = lane.send(again()).await;
                for _ in 0..TRIES {
                    if answer.status != 503 {
                        break;
                    }
                    sleep(PAUSE).await;
                    answer = lane.send(again()).await;
                }
                (number, answer)
            });
        }
        let mut answers = racing.join_all().await;
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

impl Lane {
    async fn send(&self, request: Request<Body>) -> Answer {
        let to = format!("{} {}", request.method(), request.uri().path());
        let mut sender = self.sender.lock().await;
        let is_open = match sender.as_mut() {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            let stream = TcpStream::connect(self.to).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (fresh, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            self.tasks.spawn(connection);
            *sender = Some(fresh);
        }
        let response = sender.as_mut().unwrap().send_request(request).await;
        let (parts, body) = response.unwrap().into_parts();
        Answer {
            to,
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}
