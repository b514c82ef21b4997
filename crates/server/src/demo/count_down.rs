//! A count that takes its time, with or without saying how far it is.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{
    reply::{Members, success},
    revision::Revision,
    tools::structured,
};

/// A count from `from` to zero with `interval` between two steps.
pub(super) struct CountDown {
    from: u32,
    interval: Duration,
}

impl CountDown {
    /// Reads the tool's arguments, or says in a sentence what is wrong with them.
    pub(super) fn parse(arguments: &Members) -> Result<Self, &'static str> {
        let from = integer(arguments, "from", 5, 1, 10)
            .ok_or("the argument `from` must be an integer from 1 to 10")?;
        let interval = integer(arguments, "interval_ms", 300, 10, 2000)
            .ok_or("the argument `interval_ms` must be an integer from 10 to 2000")?;
        Ok(Self {
            from,
            interval: Duration::from_millis(interval.into()),
        })
    }

    /// Counts silently, and answers with the result.
    pub(super) async fn count(self, revision: Revision) -> Members {
        sleep(self.interval * self.from).await;
        self.result(revision, 0)
    }

    /// Counts aloud: a stream of progress notifications and then the response to the request
    /// `id`. It runs only while it is read, so it ends with the connection.
    pub(super) fn stream(self, revision: Revision, id: Value, progress_token: Value) -> Body {
        let begin = Instant::now();
        Body::new(Events {
            step: 0,
            due: Box::pin(sleep_until(begin)),
            count_down: self,
            revision,
            id,
            progress_token,
            ended: false,
        })
    }

    fn result(&self, revision: Revision, progress_notifications: u32) -> Members {
        structured(
            revision,
            json!({
                "counted_from": self.from,
                "progress_notifications": progress_notifications,
            }),
        )
    }
}

/// The integer under `name`, `default` if there is none. JSON Schema counts `5.0` as an integer.
fn integer(arguments: &Members, name: &str, default: u32, min: u32, max: u32) -> Option<u32> {
    let Some(value) = arguments.get(name) else {
        return Some(default);
    };
    let value = value.as_f64()?;
    (min..=max).find(|candidate| f64::from(*candidate).total_cmp(&value).is_eq())
}

/// The events of one count, each made when it is due.
struct Events {
    /// How many progress notifications were sent.
    step: u32,
    due: Pin<Box<Sleep>>,
    count_down: CountDown,
    revision: Revision,
    id: Value,
    progress_token: Value,
    ended: bool,
}

impl Events {
    fn progress(&self) -> Value {
        let CountDown { from, .. } = self.count_down;
        let mut params = json!({
            "progressToken": self.progress_token,
            "progress": self.step,
            "total": from,
        });
        if self.revision.has_annotations() {
            params["message"] = format!("{} …", from + 1 - self.step).into();
        }
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        ready!(self.due.as_mut().poll(context));
        let message = if self.step < self.count_down.from {
            self.step += 1;
            let next = self.due.deadline() + self.count_down.interval;
            self.due.as_mut().reset(next);
            self.progress()
        } else {
            self.ended = true;
            let result = self.count_down.result(self.revision, self.step);
            success(self.revision, &self.id, result)
        };
        let event = format!("event: message\ndata: {message}\n\n");
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
