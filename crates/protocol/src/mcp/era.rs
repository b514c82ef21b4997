//! Which era a request speaks. The version header alone does not tell: hosted clients send the
//! newest one over a session of the older era, and an older one over a body of the newer.

use http::Method;

use super::{
    message::Message,
    revision::{Era, Revision},
};

/// What a request outside any session shows of its era.
#[derive(Debug)]
pub struct Signs<'a> {
    pub method: &'a Method,
    /// The version header, if it names a revision.
    pub header: Option<Revision>,
    /// The body, if it was read and is a message.
    pub message: Option<&'a Message<'a>>,
}

impl Signs<'_> {
    /// The first sign that says anything decides.
    pub fn era(&self) -> Era {
        match self.message {
            Some(message) if is_modern(message) => Era::Modern,
            Some(message) if opens(message) => Era::Legacy,
            _ if self.may_be_modern() => self.header.map_or(Era::Legacy, Revision::era),
            _ => Era::Legacy,
        }
    }

    /// Streams that are asked for by `GET`, the end of a session, and notifications are of the
    /// older era, whatever the header says.
    fn may_be_modern(&self) -> bool {
        let is_notification = |it: &Message<'_>| it.method.is_some() && it.id.is_none();
        *self.method == Method::POST && !self.message.is_some_and(is_notification)
    }
}

/// The method with which a session of the older era begins.
pub const INITIALIZE: &str = "initialize";
/// The method by which a client asks a server of the newer era what it is.
pub const DISCOVER: &str = "server/discover";
/// The method of the newer era whose answer is a stream that goes on by itself.
pub const LISTEN: &str = "subscriptions/listen";

/// Whether a body can be of the newer era only.
pub fn is_modern(message: &Message<'_>) -> bool {
    message.revision.map(Revision::era) == Some(Era::Modern)
        || message.is_for(DISCOVER)
        || message.is_for(LISTEN)
}

/// Whether a body asks for a session. One of the newer era that calls the method which that era has
/// dropped asks for nothing: its server says so.
pub fn opens(message: &Message<'_>) -> bool {
    message.is_for(INITIALIZE) && !is_modern(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &str = r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

    /// Cases 32 and 33
    #[test]
    fn the_first_sign_of_an_era_decides() {
        let old = r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}}}"#;
        let bare = r#"{"id":1,"method":"tools/list"}"#;
        for (method, header, body, expected) in [
            (
                Method::POST,
                "2026-07-28",
                r#"{"id":1,"method":"initialize"}"#,
                Era::Legacy,
            ),
            (
                Method::POST,
                "2026-07-28",
                &MODERN.replace(r#""x""#, r#""initialize""#),
                Era::Modern,
            ),
            (Method::POST, "", MODERN, Era::Modern),
            (Method::POST, "2025-11-25", MODERN, Era::Modern),
            (
                Method::POST,
                "",
                r#"{"id":1,"method":"server/discover"}"#,
                Era::Modern,
            ),
            (
                Method::POST,
                "2025-11-25",
                r#"{"id":1,"method":"subscriptions/listen"}"#,
                Era::Modern,
            ),
            (Method::POST, "2025-11-25", old, Era::Legacy),
            (Method::POST, "2025-11-25", bare, Era::Legacy),
            (Method::POST, "2026-07-28", bare, Era::Modern),
            (
                Method::POST,
                "2026-07-28",
                r#"{"method":"notifications/initialized"}"#,
                Era::Legacy,
            ),
            (Method::POST, "2026-07-28", "[]", Era::Modern),
            (Method::POST, "", bare, Era::Legacy),
            (Method::GET, "2026-07-28", "", Era::Legacy),
            (Method::DELETE, "2026-07-28", "", Era::Legacy),
        ] {
            let message = Message::read(body.as_bytes()).ok();
            let signs = Signs {
                method: &method,
                header: Revision::parse(header.as_bytes()),
                message: message.as_ref(),
            };
            assert_eq!(signs.era(), expected, "{method} {header} {body}");
        }
    }
}
