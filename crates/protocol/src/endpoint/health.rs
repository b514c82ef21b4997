//! Whether the program is alive, and whether it can work. For balancers; nothing to read in it.

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde_json::json;

use super::{App, respond};
use crate::journal::Endpoint;

/// `GET /health`: the process answers.
pub(super) async fn report_alive() -> Response {
    respond::json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /ready`: the store answers too.
pub(super) async fn report_ready(State(app): State<App>) -> Response {
    match app.ports.store.get("ready").await {
        Ok(_) => respond::json(StatusCode::OK, &json!({ "status": "ready" })),
        Err(error) => respond::refused(&app, Endpoint::Ready, &error.into(), false),
    }
}
