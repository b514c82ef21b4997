//! Whether the program is alive, and whether it can work. For balancers; nothing to read in it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde_json::json;

use super::{App, respond};
use crate::{journal::Endpoint, ports::StoreError};

/// How long a look is believed. Anybody may ask, and each look is a write.
const BELIEVED: Duration = Duration::from_secs(2);

/// When the store was last looked at, and whether it took the write.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Duration, bool)>>);

/// `GET /health`: the process answers.
pub(super) async fn report_alive() -> Response {
    respond::json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /ready`: the store takes writes too. One that can only be read keeps calls going, but no
/// token is issued from it.
pub(super) async fn report_ready(State(app): State<App>) -> Response {
    match is_ready(&app).await {
        Ok(()) => respond::json(StatusCode::OK, &json!({ "status": "ready" })),
        Err(error) => respond::refused(&app, Endpoint::Ready, &error.into(), false),
    }
}

async fn is_ready(app: &App) -> Result<(), StoreError> {
    let now = app.ports.clock.elapsed();
    if let Some(was_ready) = app.readiness.believed(now) {
        return if was_ready {
            Ok(())
        } else {
            Err(StoreError::new("it took no write just now"))
        };
    }
    let expires_at = app.ports.clock.now() + Duration::from_hours(24);
    let probed = app.records().probe(expires_at).await;
    app.readiness
        .learn(app.ports.clock.elapsed(), probed.is_ok());
    probed
}

impl Readiness {
    /// What is believed at `now`. `None`: the caller is to look; until it has, others go on
    /// believing what was seen last.
    fn believed(&self, now: Duration) -> Option<bool> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((at, was_ready)) if now < *at + BELIEVED => Some(*was_ready),
            Some((at, _)) => {
                *at = now;
                None
            }
            None => None,
        }
    }

    fn learn(&self, now: Duration, is_ready: bool) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((now, is_ready));
    }
}
