//! What addresses meant at earlier starts: what goes on, and what is lost and how to have it back.

use std::{collections::BTreeMap, fmt};

use protocol::{
    identity::password::SignIn,
    oauth::{grant::Grant, resource},
    policy::Policy,
    ports::{Clock, Store, StoreError},
    records::{self, GRANTS, OnlyUpstream, ReadError, Records},
};

use url::Url;

use crate::{
    config::{DEMO, Plan, StoreKind, UNNAMED},
    host::SQLITE_FILE,
    store::SqlStore,
    system::SystemClock,
};

/// The most approvals that are read.
const MOST_READ: u32 = 10_000;

/// The upstream that was the only one before others came: its clients may know it by addresses that
/// only one upstream can have. `None` while there is one.
pub(crate) async fn recall_the_only_one(
    store: &dyn Store,
    policy: &Policy,
) -> Result<Option<String>, ReadError> {
    if policy.upstreams.len() == 1 {
        return Ok(None);
    }
    let known = Records(store).only_upstream().await?;
    Ok(known.map(|known| known.record.name))
}

/// Stores which upstream is the only one, if there is just one.
pub(crate) async fn remember_the_only_one(
    store: &dyn Store,
    policy: &Policy,
) -> Result<(), ReadError> {
    let [only] = &policy.upstreams[..] else {
        return Ok(());
    };
    let records = Records(store);
    let only = OnlyUpstream {
        name: only.name.clone(),
    };
    let known = records.only_upstream().await?;
    if known.as_ref().is_none_or(|known| known.record != only) {
        let seen = known.as_ref().map(|known| &known.seen);
        // `false`: another process was first, with the same configuration.
        let _ = records.write_only_upstream(seen, &only).await?;
    }
    Ok(())
}

/// Approvals that hold no more, since the configuration has changed, by what they were given for.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) upstream: String,
    pub(crate) address: String,
    pub(crate) approvals: usize,
    /// `None`: they were for the built-in demo, and a server of the operator has taken its place.
    pub(crate) remedy: Option<String>,
}

/// Finds the approvals that a start with this plan would end. Only in a SQLite store, where nothing
/// has to be connected to; nothing is created or changed.
pub(crate) fn foretell(plan: Plan) -> anyhow::Result<Vec<Lost>> {
    // Nobody signs in.
    let (mut policy, settings) = plan.into_policy(SignIn::passphrase(""));
    let StoreKind::Sqlite = settings.store else {
        return Ok(Vec::new());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let Some(store) = SqlStore::look_into_sqlite(&settings.data_dir.join(SQLITE_FILE))? else {
            return Ok(Vec::new());
        };
        policy.once_the_only_one = recall_the_only_one(&store, &policy).await?;
        Ok(lost(&store, &policy, &SystemClock::new()).await?)
    })
}

/// Finds those that the store has.
pub(crate) async fn lost(
    store: &SqlStore,
    policy: &Policy,
    clock: &dyn Clock,
) -> Result<Vec<Lost>, StoreError> {
    let grants = store.values(GRANTS, MOST_READ).await?;
    let grants = grants
        .iter()
        .filter_map(|grant| records::grant_in(grant).ok());
    Ok(lost_of(grants.filter(|it| it.is_live(clock.now())), policy))
}

fn lost_of(grants: impl Iterator<Item = Grant>, policy: &Policy) -> Vec<Lost> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for grant in grants {
        let mut upstreams = policy.upstreams.iter();
        if !upstreams.any(|upstream| grant.is_for(upstream, policy)) {
            *counts
                .entry((grant.upstream, grant.resource.to_string()))
                .or_default() += 1;
        }
    }
    counts
        .into_iter()
        .map(|((upstream, address), approvals)| Lost {
            remedy: remedy(&upstream, &address, policy),
            upstream,
            address,
            approvals,
        })
        .collect()
}

/// How to restore the approvals for `name` at `address`.
fn remedy(name: &str, address: &str, policy: &Policy) -> Option<String> {
    let is_here = policy
        .upstreams
        .iter()
        .any(|upstream| upstream.name == name);
    let was_unnamed = || Url::parse(address).is_ok_and(|url| url.path() == UNNAMED);
    if name == DEMO && !is_here && was_unnamed() {
        return None;
    }
    Some(match resource::path(address, policy.names()) {
        None => "the public_url that they were given under".to_owned(),
        Some(path) if is_here => {
            format!("path = \"{path}\" in [upstream.{name}]")
        }
        Some(path) => {
            let table = format!("a table [upstream.{name}]");
            if policy.upstream_at(path).is_some() || path == format!("/mcp/{name}") {
                table
            } else {
                format!("{table}, and the address of its clients with path = \"{path}\" in it")
            }
        }
    })
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let approvals = match self.approvals {
            1 => "1 approval".to_owned(),
            several => format!("{several} approvals"),
        };
        let Self {
            upstream, address, ..
        } = self;
        match &self.remedy {
            Some(remedy) => write!(
                f,
                "{approvals} lost, given for the upstream {upstream} at {address}: approve the \
                 clients again, or restore them with {remedy}"
            ),
            None => write!(
                f,
                "{approvals} ended, given for the built-in demo server at {address}: another server \
                 has taken its place"
            ),
        }
    }
}
