//! A web of documents that the test publishes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use protocol::ports::{Fetch, FetchError, Fetched};
use serde_json::Value;
use tokio::sync::{RwLock, RwLockWriteGuard};
use url::Url;

type Outcome = Result<Fetched, FetchError>;
type Answer = Box<dyn Fn() -> Outcome + Send + Sync>;

/// Answers with what was published at a URL; nothing else can be reached.
#[derive(Default)]
pub struct FakeFetch {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
    held: RwLock<()>,
}

impl FakeFetch {
    /// Publishes a document without caching headers.
    pub fn publish(&self, url: &str, document: &Value) {
        self.publish_with(url, document.to_string(), &HeaderMap::new());
    }

    pub fn publish_with(&self, url: &str, body: impl Into<Bytes>, headers: &HeaderMap) {
        let fetched = Fetched {
            headers: headers.clone(),
            body: body.into(),
        };
        self.answer(url, move || Ok(fetched.clone()));
    }

    /// Answers every request for `url` with this.
    pub fn answer(&self, url: &str, answer: impl Fn() -> Outcome + Send + Sync + 'static) {
        self.answers().insert(url.to_owned(), Box::new(answer));
    }

    /// Keeps every fetch waiting until the guard is dropped.
    pub async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.held.write().await
    }

    /// Every URL asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.answers.lock().unwrap()
    }
}

#[async_trait]
impl Fetch for FakeFetch {
    async fn fetch(&self, url: &Url) -> Outcome {
        self.asked.lock().unwrap().push(url.to_string());
        drop(self.held.read().await);
        match self.answers().get(url.as_str()) {
            Some(answer) => answer(),
            None => Err(FetchError::Unreachable("nothing is published there".into())),
        }
    }
}
