//! The headers of requests to an upstream, as configured and as they will be sent.

use http::HeaderName;
use protocol::forward::{
    credential::NotACredential,
    shown_address::{MASK, looks_like_key},
    upstream_headers::{NeverPassed, UpstreamHeaders},
};
use secrecy::ExposeSecret;

use super::{
    credential,
    findings::Findings,
    key::Key,
    secret::{Environment, Source, resolve},
    written::{Secret, UpstreamConfig},
};

/// The headers, and lines of name and text that show them without secrets.
#[derive(Debug, Default)]
pub(super) struct Described {
    pub(super) headers: UpstreamHeaders,
    pub(super) lines: Vec<(&'static str, String)>,
}

/// Reads the headers of the upstream at `key`, whose credential goes by a header of that name.
/// `None`: a mistake was noted.
pub(super) fn read(
    written: &UpstreamConfig,
    credential: Option<&HeaderName>,
    key: &Key,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<Described> {
    let before = findings.mistakes.len();
    let mut reader = Reader {
        key,
        environment,
        findings,
        found: Described::default(),
    };
    for (name, value) in &written.headers {
        reader.fixed(name, value, credential);
    }
    reader.text("host", written.host.as_deref(), UpstreamHeaders::fix_host);
    reader.text(
        "user_agent",
        written.user_agent.as_deref(),
        UpstreamHeaders::fix_user_agent,
    );
    reader.passed(&written.pass_headers, credential);
    let found = reader.found;
    (findings.mistakes.len() == before).then_some(found)
}

struct Reader<'a, 'i> {
    key: &'a Key,
    environment: &'a Environment,
    findings: &'a mut Findings<'i>,
    found: Described,
}

impl Reader<'_, '_> {
    fn fixed(&mut self, name: &str, value: &Secret, credential: Option<&HeaderName>) {
        let key = self.key.child("headers").child(name);
        if credential.is_some_and(|header| name.eq_ignore_ascii_case(header.as_str())) {
            self.findings.mistake(
                &key,
                "is the header that `credential` goes by",
                "keep one of the two",
            );
            return;
        }
        // The name is tried with some value, so that its mistake does not hide behind a missing
        // secret.
        if let Err(error) = self.found.headers.clone().fix(name, "value") {
            self.refuse(error, name, &key);
            return;
        }
        let Some(value) = resolve(value, &key, self.environment, self.findings) else {
            return;
        };
        let text = value.text.expose_secret();
        self.findings.literal_secret |= value.source == Source::Literal && is_secret(name, text);
        match self.found.headers.fix(name, text) {
            Ok(()) => {
                let line = format!("{name}: {MASK} ({})", value.source);
                self.found.lines.push(("header", line));
            }
            Err(error) => self.refuse(error, name, &key),
        }
    }

    fn text(
        &mut self,
        name: &'static str,
        written: Option<&str>,
        fix: fn(&mut UpstreamHeaders, &str) -> Result<(), NotACredential>,
    ) {
        let Some(text) = written else { return };
        match fix(&mut self.found.headers, text) {
            Ok(()) => self.found.lines.push((name, text.to_owned())),
            Err(error) => credential::refuse(error, &self.key.child(name), self.findings),
        }
    }

    fn passed(&mut self, names: &[String], credential: Option<&HeaderName>) {
        let list = self.key.child("pass_headers");
        // After an element that could not be read, the numbers of the others are off.
        if names.is_empty() || self.findings.blames(&list) {
            return;
        }
        for (index, name) in names.iter().enumerate() {
            if let Err(error) = self.found.headers.pass(name, credential) {
                self.findings.mistake(
                    &list.element(index),
                    error.to_string(),
                    why_never_passed(error),
                );
            }
        }
        self.found.lines.push(("pass_headers", names.join(", ")));
    }

    fn refuse(&mut self, error: NotACredential, name: &str, key: &Key) {
        let (reason, remedy) = match name.to_ascii_lowercase().as_str() {
            "host" => ("has a key of its own", "write host = \"…\" beside `url`"),
            "user-agent" => (
                "has a key of its own",
                "write user_agent = \"…\" beside `url`",
            ),
            _ if error == NotACredential::ReservedHeader => (
                "names a header that the proxy itself controls",
                "remove it; the proxy sends what is right there by itself",
            ),
            _ => return credential::refuse(error, key, self.findings),
        };
        self.findings.mistake(key, reason, remedy);
    }
}

fn why_never_passed(error: NeverPassed) -> &'static str {
    match error {
        NeverPassed::HeaderName => "use letters, digits and hyphens, as in \"X-MCP-Toolsets\"",
        NeverPassed::Pattern => "name each header that the MCP server reads",
        NeverPassed::Controlled => "remove it; the proxy sends what is right there by itself",
        NeverPassed::Forgeable => {
            "remove it; a value that is the same for all clients can stand in `headers`"
        }
        NeverPassed::ForTheProxy => {
            "remove it; what the MCP server demands stands in `credential` or `headers`"
        }
        NeverPassed::Fixed => "remove it here, or where it is set",
    }
}

/// Whether the value of a header is probably a secret: by its looks, or by the header's name.
fn is_secret(name: &str, value: &str) -> bool {
    const WORDS: [&str; 7] = [
        "auth",
        "cookie",
        "credential",
        "key",
        "password",
        "secret",
        "token",
    ];
    let name = name.to_ascii_lowercase();
    looks_like_key(value) || WORDS.iter().any(|word| name.contains(word))
}
