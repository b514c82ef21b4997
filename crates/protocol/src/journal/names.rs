//! The names in logs and metrics. They are an interface: dashboards and alerts go by them, so they
//! stay when a variant is renamed.

use super::{CallRefused, Endpoint, Instead, Limit, UpstreamFailed};
use crate::{
    mcp::{repeated::Contradiction, revision::Era},
    oauth::{bearer, grant::Revoked, refresh_token::Repeated},
};

macro_rules! named {
    ($($type:ty { $($variant:pat => $name:expr,)+ })+) => {
        $(impl $type {
            /// Its name in logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($variant => $name,)+
                }
            }
        })+
    };
}

named! {
    Endpoint {
        Self::Authorize => "authorize",
        Self::Consent => "consent",
        Self::Mcp => "mcp",
        Self::Ready => "ready",
        Self::Register => "register",
        Self::Revoke => "revoke",
        Self::Token => "token",
    }
    Limit {
        Self::AttemptsPerPage => "attempts_per_page",
        Self::BriefStreamsPerGrant => "brief_streams_per_grant",
        Self::CallsPerGrant => "calls_per_grant",
        Self::Denials => "denials",
        Self::DenialsPerAddress => "denials_per_address",
        Self::DocumentFetches => "documents",
        Self::DocumentFetchesPerAddress => "documents_per_address",
        Self::DocumentFetchesPerHost => "documents_per_host",
        Self::FailuresPerDocument => "failures_per_document",
        Self::Registrations => "registrations",
        Self::RegistrationsPerAddress => "registrations_per_address",
        Self::StreamsPerGrant => "streams_per_grant",
        Self::WaitingRequests => "waiting_requests",
        Self::WrongSecrets => "wrong_secrets",
        Self::WrongTokens => "wrong_tokens_per_address",
    }
    Instead {
        Self::LastGoodCopy => "last_good_copy",
        Self::PinnedCopy => "pinned_copy",
    }
    Era {
        Self::Legacy => "legacy",
        Self::Modern => "modern",
    }
    CallRefused {
        Self::Bearer(bearer::Refused::NoToken) => "no_token",
        Self::Bearer(bearer::Refused::InvalidToken) => "invalid_token",
        Self::Bearer(bearer::Refused::Malformed) => "malformed_token",
        Self::Method => "method",
        Self::Repeated => "repeated_header",
        Self::Contradiction(Contradiction::Method) => "method_header_differs",
        Self::Contradiction(Contradiction::Name) => "name_header_differs",
        Self::MemberTwice => "repeated_member",
        Self::TooLarge => "too_large",
        Self::Session => "unknown_session",
        Self::Body => "broken_body",
        Self::NoRoom => "waiting_requests",
        Self::Limit(limit) => limit.as_str(),
    }
    UpstreamFailed {
        Self::Unreachable => "unreachable",
        Self::TimedOut => "timed_out",
        Self::Broken => "broken",
        Self::CredentialRefused => "credential_refused",
        Self::CredentialMissing => "credential_missing",
        Self::SignInDemanded => "sign_in_demanded",
        Self::CallForbidden => "call_forbidden",
        Self::HostRefused => "host_refused",
        Self::Page => "page",
        Self::SessionLost => "session_lost",
        Self::Redirected => "redirected",
        Self::NothingThere => "nothing_there",
        Self::OldTransport => "old_transport",
        Self::NoTls => "no_tls",
        Self::Untrusted => "untrusted_certificate",
        Self::WantsTls => "wants_tls",
        Self::NoMcp => "no_mcp",
        Self::Looped => "looped",
        Self::ServerError => "server_error",
        Self::Nonsense => "nonsense",
    }
    Repeated {
        Self::WithinWindow => "within_window",
        Self::AnswerLost => "answer_lost",
    }
}

impl Revoked {
    /// Its name in logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ByClient => "by_client",
            Self::ByPerson => "by_person",
            Self::ByOperator => "by_operator",
            Self::RefreshTokenReuse => "refresh_token_reuse",
            Self::CodeReuse => "code_reuse",
            Self::Unknown(_) => "unknown",
        }
    }
}
