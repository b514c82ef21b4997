//! The credential of an upstream, as configured and as it will be sent.

use protocol::forward::{
    credential::{Credential, NotACredential},
    shown_address::MASK,
};
use secrecy::ExposeSecret;

use super::{
    findings::Findings,
    key::Key,
    secret::{Environment, Resolved, Source, resolve},
    written::{CredentialConfig, CredentialTable, Secret, TextOr},
};

/// A credential, and how to speak of it without telling it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) credential: Credential,
    pub(super) description: String,
}

impl Described {
    /// For an upstream that asks for nothing.
    pub(super) fn none() -> Self {
        Self {
            credential: Credential::None,
            description: "none".to_owned(),
        }
    }

    /// Whether nothing is sent.
    pub(super) fn is_none(&self) -> bool {
        matches!(self.credential, Credential::None)
    }
}

/// The bearer token at `key`, which is from `source`. `None`: a mistake was noted.
pub(super) fn bearer(
    token: &str,
    source: &Source,
    key: &Key,
    findings: &mut Findings<'_>,
) -> Option<Described> {
    if token.to_ascii_lowercase().starts_with("bearer ") {
        findings.mistake(
            key,
            "begins with the word Bearer, which is added anyway",
            "remove the word and the space after it",
        );
        return None;
    }
    match Credential::bearer(token) {
        Ok(credential) => Some(Described {
            credential,
            description: format!("Authorization: Bearer {MASK} ({source})"),
        }),
        Err(error) => {
            refuse(error, key, findings);
            None
        }
    }
}

/// Reads the credential at `key`. `None`: a mistake was noted.
pub(super) fn read(
    written: Option<&CredentialConfig>,
    key: &Key,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<Described> {
    let table = match written {
        None if findings.blames(key) => return None,
        None => return Some(Described::none()),
        Some(TextOr::Text(text)) if text == "none" => return Some(Described::none()),
        Some(TextOr::Text(_)) => {
            findings.mistake(
                key,
                "does not say how to send this",
                "write { bearer = \"…\" }, another kind of key, or \"none\"",
            );
            return None;
        }
        Some(TextOr::Table(table)) => table,
    };
    let mut reader = Reader {
        key,
        environment,
        findings,
    };
    match reader.only_kind(table)? {
        "bearer" => reader.bearer(table),
        "basic" => reader.basic(table),
        "header" => reader.named(table, "header"),
        _ => reader.named(table, "query"),
    }
}

struct Reader<'a, 'i> {
    key: &'a Key,
    environment: &'a Environment,
    findings: &'a mut Findings<'i>,
}

impl Reader<'_, '_> {
    fn only_kind(&mut self, table: &CredentialTable) -> Option<&'static str> {
        let kinds: Vec<&str> = [
            ("bearer", table.bearer.is_some()),
            ("header", table.header.is_some()),
            ("basic", table.basic.is_some()),
            ("query", table.query.is_some()),
        ]
        .into_iter()
        .filter_map(|(kind, present)| present.then_some(kind))
        .collect();
        match kinds.as_slice() {
            [] if self.findings.blames(self.key) => {}
            [] if table.value.is_some() => self.findings.mistake(
                self.key,
                "has a `value` but not the name it goes by",
                "add `header` or `query`, or use { bearer = … }",
            ),
            [] => self.findings.mistake(
                self.key,
                "is empty",
                "write { bearer = \"…\" }, another kind of key, or \"none\"",
            ),
            ["bearer" | "basic"] if table.value.is_some() => self.findings.mistake(
                &self.key.child("value"),
                "belongs to `header` or `query`",
                format!("remove it; the secret stands in `{}` itself", kinds[0]),
            ),
            [kind] => return Some(kind),
            [first, second, ..] => self.findings.mistake(
                self.key,
                format!("has two kinds of key at once, `{first}` and `{second}`"),
                "keep the one that the MCP server asks for",
            ),
        }
        None
    }

    fn bearer(&mut self, table: &CredentialTable) -> Option<Described> {
        let key = self.key.child("bearer");
        let token = self.secret(table.bearer.as_ref(), &key)?;
        bearer(
            token.text.expose_secret(),
            &token.source,
            &key,
            self.findings,
        )
    }

    fn basic(&mut self, table: &CredentialTable) -> Option<Described> {
        let key = self.key.child("basic");
        let basic = table.basic.as_ref()?;
        let username_key = key.child("username");
        let username = self.part(basic.username.as_deref(), &key, "username");
        if let Some(Err(error)) = username.map(|username| Credential::basic(username, "")) {
            refuse(error, &username_key, self.findings);
        }
        if basic.password.is_none() {
            self.missing(&key, "password");
        }
        let password = self.secret(basic.password.as_ref(), &key.child("password"));
        let (username, password) = (username?, password?);
        let described =
            Credential::basic(username, password.text.expose_secret()).map(|credential| {
                Described {
                    credential,
                    description: format!(
                        "Authorization: Basic {username}:{MASK} ({})",
                        password.source
                    ),
                }
            });
        described.ok()
    }

    fn named(&mut self, table: &CredentialTable, kind: &'static str) -> Option<Described> {
        let is_header = kind == "header";
        let written = if is_header {
            &table.header
        } else {
            &table.query
        };
        let name = written.as_deref()?;
        let make = |value: &str| {
            if is_header {
                Credential::header(name, value)
            } else {
                Credential::query(name, value)
            }
        };
        // The name is tried with some value, so that its mistake does not hide behind a missing
        // secret.
        let name_key = self.key.child(kind);
        let name_is_good = match make("value") {
            Ok(_) => true,
            Err(error) => {
                refuse(error, &name_key, self.findings);
                false
            }
        };
        if table.value.is_none() {
            self.missing(self.key, "value");
        }
        let value_key = self.key.child("value");
        let value = self.secret(table.value.as_ref(), &value_key)?;
        if !name_is_good {
            return None;
        }
        let shown = if is_header {
            format!("{name}: {MASK}")
        } else {
            format!("?{name}={MASK}")
        };
        let described = make(value.text.expose_secret()).map(|credential| Described {
            credential,
            description: format!("{shown} ({})", value.source),
        });
        self.sendable(described, &value_key)
    }

    fn secret(&mut self, written: Option<&Secret>, key: &Key) -> Option<Resolved> {
        let secret = resolve(written?, key, self.environment, self.findings)?;
        self.findings.literal_secret |= secret.source == Source::Literal;
        Some(secret)
    }

    fn part<'t>(&mut self, text: Option<&'t str>, key: &Key, name: &str) -> Option<&'t str> {
        match text {
            None => {
                self.missing(key, name);
                None
            }
            Some("") => {
                self.findings.mistake(
                    &key.child(name),
                    "must not be empty",
                    format!("write the {name} that the MCP server knows"),
                );
                None
            }
            Some(text) => Some(text),
        }
    }

    fn missing(&mut self, key: &Key, name: &str) {
        if !self.findings.blames(&key.child(name)) {
            self.findings
                .mistake(key, format!("has no `{name}`"), format!("add `{name}`"));
        }
    }

    fn sendable(
        &mut self,
        described: Result<Described, NotACredential>,
        key: &Key,
    ) -> Option<Described> {
        described
            .map_err(|error| refuse(error, key, self.findings))
            .ok()
    }
}

pub(super) fn refuse(error: NotACredential, key: &Key, findings: &mut Findings<'_>) {
    let remedy = match error {
        NotACredential::HeaderName => "use letters, digits and hyphens, as in \"X-API-Key\"",
        NotACredential::ReservedHeader => {
            "use the header that the MCP server's documentation names for the key"
        }
        NotACredential::HeaderValue => {
            "look for a line break, a control character or a letter outside ASCII in it"
        }
        NotACredential::UserName => "HTTP Basic cannot carry such a name; use another",
        NotACredential::Empty => "write it out",
        NotACredential::Repeated => "keep one of them",
        NotACredential::Host => {
            "write the name alone, with a port where the server wants one, as in \"localhost:8000\""
        }
    };
    findings.mistake(key, error.to_string(), remedy);
}
