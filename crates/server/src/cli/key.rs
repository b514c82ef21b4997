//! `key`: the keys of the key file, what still depends on each, and their rotation.

use std::{fmt::Write as _, io::Write as _, time::Duration};

use anyhow::{Context, bail};
use clap::Subcommand;
use protocol::{
    oauth::refresh_token::LOST_ANSWER,
    ports::{Clock, Timestamp},
    records::{self, GRANTS, MadeWith, Records},
    token::KeyId,
};
use secrecy::ExposeSecret;

use crate::{
    config::{KeyPlan, Plan, StoreKind, show_duration},
    host::{SQLITE_FILE, open_store},
    key_file::{self, KeyRing},
    store::SqlStore,
    system::{SystemClock, SystemEntropy},
};

/// As many as a key file has room for, and far more than anybody needs.
const MOST_KEYS: usize = 32;

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// List the keys, and what depends on each
    ///
    /// The first key makes tokens; the others recognise what they made. While the proxy runs on
    /// SQLite, what it has not written yet is not counted.
    List,
    /// Put a new key in front of the others, which makes tokens from the next start on
    ///
    /// Nobody is disconnected: the older keys go on recognising what they made.
    Rotate,
    /// Remove a key that nothing depends on any more
    ///
    /// Refused while a client depends on it. The proxy must not be running on a SQLite store
    /// meanwhile.
    Drop {
        /// The name of the key, as `key list` shows it
        #[arg(value_parser = parse_id)]
        id: KeyId,
    },
}

fn parse_id(text: &str) -> Result<KeyId, &'static str> {
    KeyId::parse(text).ok_or("a key is named by eight digits, as `key list` shows them")
}

pub(super) fn run(command: &Command, plan: &Plan) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let text = match command {
        Command::List => runtime.block_on(list(plan))?,
        Command::Rotate => rotate(plan)?,
        Command::Drop { id } => runtime.block_on(drop_key(plan, *id))?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// What depends on one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dependents {
    grants: usize,
    /// When the last of them no longer does, at the latest.
    until: Timestamp,
}

impl Dependents {
    fn add(&mut self, until: Timestamp) {
        self.grants += 1;
        self.until = self.until.max(until);
    }
}

/// What the store says of the keys.
struct Usage {
    marks: MadeWith,
    /// For each key of the ring, in its order.
    dependents: Vec<Dependents>,
    /// Grants that cannot be read, so that any key may be theirs.
    damaged: usize,
    now: Timestamp,
    /// How long after its grant moved to another key what a key made may still be presented.
    grace: Duration,
}

impl Usage {
    async fn of(keys: &KeyRing, store: &SqlStore, plan: &Plan) -> anyhow::Result<Self> {
        let ids: Vec<KeyId> = keys.all().map(key_file::MasterKey::id).collect();
        let now = SystemClock::new().now();
        let marks = Records(store).made_with().await?;
        let mut usage = Self {
            marks: marks.map(|read| read.record).unwrap_or_default(),
            dependents: vec![Dependents::default(); ids.len()],
            damaged: 0,
            now,
            grace: LOST_ANSWER.max(plan.tokens.access_lifetime),
        };
        for value in store.values(GRANTS, u32::MAX).await? {
            let Ok(grant) = records::grant_in(&value) else {
                usage.damaged += 1;
                continue;
            };
            if !grant.is_live(now) {
                continue;
            }
            // Grants of 0.1.0 name no key: they are the oldest one's.
            let of_now = grant.key.or(ids.last().copied());
            for (id, dependents) in ids.iter().zip(&mut usage.dependents) {
                let is = |key: Option<KeyId>| key == Some(*id);
                let now_and_before = [
                    is(of_now).then(|| grant.expires_at()),
                    is(grant.key_before).then(|| grant.rotated_at + usage.grace),
                ];
                let until = now_and_before.into_iter().flatten().max();
                if let Some(until) = until.filter(|until| now < *until) {
                    dependents.add(until);
                }
            }
        }
        Ok(usage)
    }

    /// Until when pages, codes and access tokens of the key may still be presented. `None`: it made none.
    fn unwritten_until(&self, id: KeyId) -> Option<Timestamp> {
        let mut marks = self.marks.keys.iter();
        let mark = marks.find(|mark| mark.fingerprint.id() == id)?;
        let made_until = mark.made_until.unwrap_or(self.now);
        Some(made_until + self.grace)
    }

    /// Why the key in that place, which is not the first, cannot go; nothing, if it can.
    fn hinders(&self, place: usize, id: KeyId) -> Option<String> {
        let Dependents { grants, until } = self.dependents[place];
        if self.damaged > 0 {
            return Some(format!(
                "{} grants in the store cannot be read, and any key may be theirs",
                self.damaged
            ));
        }
        if grants > 0 {
            let left = left(until, self.now);
            return Some(format!("{}, for another {left} at most", clients(grants)));
        }
        let until = self.unwritten_until(id)?;
        (self.now < until).then(|| {
            format!(
                "codes and access tokens that it made may still be used, for another {}",
                left(until, self.now)
            )
        })
    }
}

fn clients(grants: usize) -> String {
    match grants {
        1 => "1 approved client depends on it".to_owned(),
        several => format!("{several} approved clients depend on it"),
    }
}

/// The time until then in whole hours, not too few.
fn left(until: Timestamp, now: Timestamp) -> String {
    let hours = (until - now).as_secs().div_ceil(60 * 60);
    show_duration(Duration::from_hours(hours))
}

async fn list(plan: &Plan) -> anyhow::Result<String> {
    let loaded;
    let keys = match &plan.key {
        KeyPlan::Configured { keys, .. } => keys,
        KeyPlan::DataDir => {
            loaded = load(plan)?;
            &loaded
        }
    };
    let usage = match look_into(plan).await {
        Ok(Some(store)) => {
            let usage = Usage::of(keys, &store, plan).await;
            store.close().await;
            usage.map(Some)
        }
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    let mut text = String::new();
    for (place, key) in keys.all().enumerate() {
        let id = key.id();
        let job = if place == 0 { "makes" } else { "recognises" };
        let depends = match &usage {
            Ok(Some(usage)) if place == 0 => match usage.dependents[0].grants {
                0 => "nothing depends on it".to_owned(),
                grants => clients(grants),
            },
            Ok(Some(usage)) => usage
                .hinders(place, id)
                .unwrap_or_else(|| format!("nothing depends on it: `key drop {id}` removes it")),
            Ok(None) => "there is no store yet".to_owned(),
            Err(_) => "it is not known what depends on it".to_owned(),
        };
        writeln!(text, "{id}  {job:<10}  {depends}")?;
    }
    if let Err(error) = usage {
        writeln!(text, "\nwarning: the store could not be read: {error:#}")?;
    }
    Ok(text)
}

fn rotate(plan: &Plan) -> anyhow::Result<String> {
    is_ours_to_write(plan)?;
    let keys = load(plan)?;
    if keys.all().count() >= MOST_KEYS {
        bail!(
            "the key file has {MOST_KEYS} keys; drop older ones first, `key list` says which can go"
        );
    }
    let rotated = keys.rotated(&SystemEntropy);
    let id = rotated.first().id();
    key_file::replace(&plan.settings.data_dir, &rotated, &SystemEntropy)?;
    Ok(format!(
        "{id} is the new key. It makes tokens from the next start on: restart the proxy. The older keys go \
         on recognising what they made; `key list` says when one can be dropped.\nBack up the key file.\n"
    ))
}

async fn drop_key(plan: &Plan, id: KeyId) -> anyhow::Result<String> {
    is_ours_to_write(plan)?;
    let keys = load(plan)?;
    let Some(place) = keys.all().position(|key| key.id() == id) else {
        bail!("there is no key {id} in the key file; `key list` shows those there are");
    };
    if place == 0 {
        bail!(
            "the key {id} is the one that makes tokens; put another in front with `key rotate` first"
        );
    }
    let store = open_store(&plan.settings).await?;
    let dropped = drop_from(&store, plan, keys, place, id).await;
    store.close().await;
    dropped?;
    Ok(format!(
        "The key {id} was removed from the key file. A proxy that is running has it until its next start.\n"
    ))
}

async fn drop_from(
    store: &SqlStore,
    plan: &Plan,
    keys: KeyRing,
    place: usize,
    id: KeyId,
) -> anyhow::Result<()> {
    let usage = Usage::of(&keys, store, plan).await?;
    if let Some(why) = usage.hinders(place, id) {
        bail!("the key {id} cannot be dropped: {why}");
    }
    // The mark first: a start without a key that is marked would be refused.
    let records = Records(store);
    if let Some(mut read) = records.made_with().await? {
        read.record.keys.retain(|mark| mark.fingerprint.id() != id);
        let written = records
            .write_made_with(Some(&read.seen), &read.record)
            .await?;
        if !written {
            bail!("another process changed the marks of the store meanwhile; try again");
        }
    }
    key_file::replace(&plan.settings.data_dir, &keys.without(id), &SystemEntropy)?;
    Ok(())
}

/// The keys of the data directory. None are made for this.
fn load(plan: &Plan) -> anyhow::Result<KeyRing> {
    let data_dir = &plan.settings.data_dir;
    key_file::load(data_dir)?.with_context(|| {
        format!(
            "there is no key file {}; the first start of the proxy makes one",
            data_dir.join(key_file::FILE_NAME).display()
        )
    })
}

/// Refuses to write where the operator named the keys.
fn is_ours_to_write(plan: &Plan) -> anyhow::Result<()> {
    match &plan.key {
        KeyPlan::DataDir => Ok(()),
        KeyPlan::Configured { source, .. } => bail!(
            "the keys come from {source}, which this command does not write; change them there: one key in \
             each line, the one that makes first. `key list` says which older ones can go"
        ),
    }
}

/// The store to read from, also beside the process that it belongs to. `None`: there is none yet.
async fn look_into(plan: &Plan) -> anyhow::Result<Option<SqlStore>> {
    Ok(match &plan.settings.store {
        StoreKind::Sqlite => SqlStore::look_into_sqlite(&plan.settings.data_dir.join(SQLITE_FILE))?,
        StoreKind::Postgres { url } => Some(SqlStore::open_postgres(url.expose_secret()).await?),
    })
}
