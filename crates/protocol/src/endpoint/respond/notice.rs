//! What a person reads when a consent page approves nothing.

use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};

use super::{
    super::{App, authorize::reminder, pages::MessagePage},
    come_back_after, page, seconds,
};
use crate::ports::Timestamp;

/// Why a consent form approves nothing.
pub(crate) enum Notice {
    /// The form was not sent from the browser that it was shown in.
    ForeignForm,
    Expired,
    AlreadyApproved,
    AlreadyDenied,
    TooManyAttempts {
        wait: Duration,
    },
    /// Too many wrong attempts came from the page; it can approve nothing any more.
    PageSpent,
    TooManyDenials {
        wait: Duration,
    },
}

/// The page that says so.
pub(crate) fn notice(app: &App, notice: &Notice) -> Response<Body> {
    let start_again = "Go back to your app and connect again.";
    let waiting;
    let (status, title, explanation, next_step) = match notice {
        Notice::ForeignForm => (
            StatusCode::FORBIDDEN,
            "This page was not opened here",
            "The form did not come from the browser window that it was shown in, or cookies are \
             blocked, or it was open for more than an hour.",
            start_again,
        ),
        Notice::Expired => (
            StatusCode::BAD_REQUEST,
            "This page has expired",
            "It was open for too long, so nothing was approved.",
            start_again,
        ),
        Notice::AlreadyApproved => (
            StatusCode::CONFLICT,
            "This was approved already",
            "The app was approved from this page before, so it cannot be denied here any more.",
            "To take the approval back, disconnect the app.",
        ),
        Notice::AlreadyDenied => (
            StatusCode::CONFLICT,
            "This was denied already",
            "The app was denied from this page before, so it cannot be approved here any more.",
            start_again,
        ),
        Notice::TooManyAttempts { wait } => {
            let time = match seconds(*wait) {
                few @ 0..90 => format!("{few} seconds"),
                many => format!("{} minutes", many.div_ceil(60)),
            };
            let reminder = reminder(app).unwrap_or_default();
            let until = time_of_day(app.ports.clock.now() + *wait);
            waiting = format!(
                "Wait {time}, until {until}, then go back to your app and connect again; this page may have expired \
                 by then. {reminder}"
            );
            (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many wrong attempts",
                "Further attempts are locked out for now, to prevent guessing.",
                waiting.trim_end(),
            )
        }
        Notice::PageSpent => (
            StatusCode::FORBIDDEN,
            "Too many wrong attempts",
            "There were too many wrong attempts on this page, so it cannot approve anything any \
             more.",
            start_again,
        ),
        Notice::TooManyDenials { .. } => (
            StatusCode::TOO_MANY_REQUESTS,
            "Nothing was approved",
            "Too many requests were denied just now, so this denial was not recorded.",
            "Close this page: without an approval the app gets nothing.",
        ),
    };
    let message = MessagePage {
        title,
        explanation,
        next_step,
        ..MessagePage::default()
    };
    let mut response = page(app, status, message.render());
    if let Notice::TooManyAttempts { wait } | Notice::TooManyDenials { wait } = notice {
        come_back_after(&mut response, *wait);
    }
    response
}

/// A time for people, the next full minute. Their time zone is not known here.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    let minutes = at.0.div_euclid(60) + i64::from(at.0.rem_euclid(60) > 0);
    let (hour, minute) = (minutes.rem_euclid(24 * 60) / 60, minutes.rem_euclid(60));
    format!("{hour:02}:{minute:02} UTC")
}
