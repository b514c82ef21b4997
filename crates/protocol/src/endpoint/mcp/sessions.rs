//! Sessions of upstreams in the hands of clients, and those that are kept for clients which do not
//! send them back.
//!
//! What clients hold is sealed to person, client and upstream: an upstream that sees one key for
//! everybody cannot keep people apart. What is kept belongs to one grant, since with a passphrase
//! all people are one, and everybody's hosted client has one name.

use std::sync::atomic::Ordering;

use super::{
    super::{App, extract::Permit},
    Route,
};
use crate::{
    grants::{KeptSession, LiveGrant},
    mcp::session::Session,
    oauth::{access_token::Family, grant::Grant},
    policy::UpstreamPolicy,
    records::StoredSession,
    token::Purpose,
};

/// Who a session belongs to.
fn context(upstream: &UpstreamPolicy, grant: &Grant) -> Vec<u8> {
    let parts = [
        upstream.name.as_str(),
        &grant.subject,
        grant.client_id.as_str(),
    ];
    parts.join("\0").into_bytes()
}

/// The session that a client names, if it is its own.
pub(super) fn open(app: &App, permit: &Permit, sealed: &str) -> Option<Session> {
    open_for(app, permit.upstream(), &permit.live().grant, sealed)
}

fn open_for(app: &App, upstream: &UpstreamPolicy, grant: &Grant, sealed: &str) -> Option<Session> {
    let context = context(upstream, grant);
    let (bytes, _) = app.keys.open(Purpose::McpSession, sealed, &context)?;
    Session::from_bytes(&bytes)
}

/// What the client gets in place of the upstream's own id. The same session seals to the same text.
pub(super) fn seal(app: &App, upstream: &UpstreamPolicy, grant: &Grant, it: &Session) -> String {
    let context = context(upstream, grant);
    app.keys.seal(Purpose::McpSession, &it.to_bytes(), &context)
}

/// The session that a request means which names none: the newest one that was opened under its
/// grant, here or on another process that shares the store. Where the upstream keeps no sessions,
/// only a request that `speaks_newer` needs to know what was agreed on. A failing store does not
/// stop the call.
pub(super) async fn kept(
    app: &App,
    route: &Route,
    permit: &Permit,
    speaks_newer: bool,
) -> Option<Session> {
    let conversation = &permit.live().conversation;
    let is_young = |kept: &KeptSession| {
        app.ports.clock.now() < kept.opened_at + app.policy.limits.kept_session_lifetime
    };
    let known = conversation.session().filter(is_young);
    let Some(freshness) = app.policy.grant_freshness else {
        return known.map(|kept| kept.session);
    };
    let now = app.ports.clock.elapsed();
    if let Some(known) = known
        && now.saturating_sub(known.known_at) < freshness
    {
        return Some(known.session);
    }
    if route.learnt.has_no_sessions.load(Ordering::Relaxed) && !speaks_newer {
        return None;
    }
    let stored = app.records().kept_session(permit.family()).await.ok()??;
    let kept = KeptSession {
        session: open(app, permit, &stored.record.sealed?)?,
        opened_at: stored.record.opened_at,
        known_at: now,
    };
    if !is_young(&kept) {
        return None;
    }
    conversation.keep_session(kept.clone());
    Some(kept.session)
}

/// Keeps a session that was just opened. Should the store not take it, requests that name none go
/// on in the older one on other processes, or in none, and the upstream says so.
pub(super) async fn keep(
    app: &App,
    family: Family,
    live: &LiveGrant,
    session: Session,
    sealed: &str,
) {
    let opened_at = app.ports.clock.now();
    live.conversation.keep_session(KeptSession {
        session,
        opened_at,
        known_at: app.ports.clock.elapsed(),
    });
    if app.policy.grant_freshness.is_some() {
        let stored = StoredSession {
            sealed: Some(sealed.to_owned()),
            opened_at,
        };
        write(app, family, &stored, |_| true).await;
    }
}

/// Forgets a session that is over, if it is the one that is kept.
pub(super) async fn forget(
    app: &App,
    route: &Route,
    family: Family,
    live: &LiveGrant,
    session: &Session,
) {
    live.conversation.forget_session(session);
    if app.policy.grant_freshness.is_some() {
        let none = StoredSession {
            sealed: None,
            opened_at: app.ports.clock.now(),
        };
        // Opened, since another key may have sealed it.
        let is_it = |stored: &StoredSession| {
            let sealed = stored.sealed.as_deref();
            let open = |sealed| open_for(app, &route.upstream, &live.grant, sealed);
            sealed.and_then(open).as_ref() == Some(session)
        };
        write(app, family, &none, is_it).await;
    }
}

/// Forgets the session that is kept for a grant which has ended.
pub(in crate::endpoint) async fn forget_kept_session(app: &App, family: Family) {
    if app.policy.grant_freshness.is_some() {
        let none = StoredSession {
            sealed: None,
            opened_at: app.ports.clock.now(),
        };
        write(app, family, &none, |stored| stored.sealed.is_some()).await;
    }
}

/// Writes over what is stored, if `may_replace` says so of it. Who loses a race against another
/// process tries again.
async fn write(
    app: &App,
    family: Family,
    session: &StoredSession,
    may_replace: impl Fn(&StoredSession) -> bool,
) {
    const ATTEMPTS: usize = 3;
    let expires_at = app.ports.clock.now() + app.policy.limits.kept_session_lifetime;
    for _ in 0..ATTEMPTS {
        let Ok(stored) = app.records().kept_session(family).await else {
            return;
        };
        let seen = match &stored {
            Some(stored) if !may_replace(&stored.record) => return,
            None if session.sealed.is_none() => return,
            stored => stored.as_ref().map(|stored| &stored.seen),
        };
        let written = app
            .records()
            .write_kept_session(family, seen, session, expires_at)
            .await;
        if !matches!(written, Ok(false)) {
            return;
        }
    }
}
