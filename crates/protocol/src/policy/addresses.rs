//! Which address means which upstream.
//!
//! Each upstream has a path of its own, below every public name. `/mcp` and the origin itself mean
//! the only upstream there is, and go on meaning it when others come.

use std::{iter, sync::Arc};

use super::{Policy, UpstreamPolicy};
use crate::oauth::{error::OAuthError, identifiers::Alias, resource};

/// Where the only upstream is found too: at `/mcp`, and at the origin, whose path is written without
/// a slash at its end.
pub const OF_THE_ONLY_ONE: [&str; 2] = ["/mcp", ""];

/// Resources that are named to a client at most: an error travels in a URL.
const MOST_LISTED: usize = 16;

impl Policy {
    /// The origins that this proxy is called by, the issuer first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.iter().map(Alias::as_str);
        iter::once(self.issuer.as_str()).chain(aliases)
    }

    /// Whether pages of `origin` are our own.
    pub fn is_own_origin(&self, origin: &str) -> bool {
        self.names().any(|name| name == origin)
    }

    /// The origin that goes with the host of a request; the issuer, if the host is none of ours.
    pub fn name_of_host(&self, host: &str) -> &str {
        let is_issuer = self.issuer.authority().eq_ignore_ascii_case(host);
        let mut aliases = self.aliases.iter().filter(|_| !is_issuer);
        let alias = aliases.find(|alias| alias.is_called(host));
        alias.map_or(self.issuer.as_str(), Alias::as_str)
    }

    /// The upstream that `path` means: its own, or one that the only upstream has too. Without a slash
    /// at its end, so empty for the origin itself.
    pub fn upstream_at(&self, path: &str) -> Option<&Arc<UpstreamPolicy>> {
        let own = self.upstreams.iter().find(|upstream| upstream.path == path);
        own.or_else(|| self.only().filter(|_| OF_THE_ONLY_ONE.contains(&path)))
    }

    /// The only upstream, or the one that was the only one before others came.
    pub fn only(&self) -> Option<&Arc<UpstreamPolicy>> {
        match &self.upstreams[..] {
            [only] => Some(only),
            several => several
                .iter()
                .find(|upstream| self.once_the_only_one.as_ref() == Some(&upstream.name)),
        }
    }

    /// Every path that means an upstream, and which.
    pub fn paths(&self) -> impl Iterator<Item = (&str, &Arc<UpstreamPolicy>)> {
        let own = self.upstreams.iter().map(|upstream| &*upstream.path);
        let all = own.chain(OF_THE_ONLY_ONE);
        all.filter_map(|path| Some((path, self.upstream_at(path)?)))
    }

    /// The upstream that `resource` means, by whichever of its addresses. What is stored and checked
    /// later is its canonical resource.
    pub fn resolve(&self, resource: &str) -> Result<&Arc<UpstreamPolicy>, OAuthError> {
        self.meant_by(resource).ok_or_else(|| {
            OAuthError::invalid_target(format!(
                "resource names nothing that this server protects: use {}",
                self.listed_resources()
            ))
            .presenting(resource)
        })
    }

    /// Whether `resource` means `upstream`.
    pub fn means(&self, resource: &str, upstream: &UpstreamPolicy) -> bool {
        resource == upstream.resource.as_str()
            || self
                .meant_by(resource)
                .is_some_and(|meant| meant.name == upstream.name)
    }

    fn meant_by(&self, resource: &str) -> Option<&Arc<UpstreamPolicy>> {
        self.upstream_at(resource::path(resource, self.names())?)
    }

    /// The resources there are, as a sentence goes on with them.
    pub fn listed_resources(&self) -> String {
        let upstreams = self.upstreams.iter().take(MOST_LISTED);
        let mut listed: Vec<&str> = upstreams
            .map(|upstream| upstream.resource.as_str())
            .collect();
        if self.upstreams.len() > MOST_LISTED {
            listed.push("one of the others");
        }
        match &listed[..] {
            [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
            all => all.concat(),
        }
    }
}
