//! Typed records over the verbs of the store: the key, the lifetime and the encoding of each.
//!
//! A record is a JSON object with the version of its form as member `v`. Without one it is of the
//! first form, as 0.1.0 wrote it.
//!
//! - Members that this program does not know are kept when it writes the record again: a newer
//!   program on the same store needs them.
//! - A reason of a revocation that it does not know is kept too. Any other unknown value of an enum
//!   decides what may be done, so it makes the record one that this program cannot read.
//! - A form that an older program must not read past has a higher `v`.
//!
//! A record that cannot be read is [`Damaged`]. It is left as it is, since it may be repaired.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    identity::backoff::SharedAllowance,
    oauth::{
        access_token::Family,
        authorization_code::IssuedCode,
        client::Client,
        client_assertion::Once,
        error::{ErrorCode, OAuthError},
        grant::Grant,
        identifiers::ClientId,
    },
    ports::{Store, StoreError, Timestamp},
    token::{self, KeyFingerprint},
};

/// The version of the form in which records are written. Newer ones are not read.
const VERSION: u64 = 1;

/// How long a record outlives its last use, so that a late repetition is still recognised.
const MEMORY: std::time::Duration = std::time::Duration::from_hours(1);

/// What the keys of registered clients start with.
pub const CLIENTS: &str = "client/";
/// What the keys of grants start with.
pub const GRANTS: &str = "grant/";
/// The version at which a client is stored that nothing was ever redeemed for: it is written again
/// at its first grant. So whoever has to make room can tell it by the store's own columns.
pub const UNUSED_CLIENT: u64 = 1;

/// The attempts to sign in that unauthenticated callers share.
const SHARED_ALLOWANCE: &str = "mark/strangers";
/// The keys that the records of the store were made with.
const KEYS: &str = "mark/key";
/// The latest time that was known.
const TIME: &str = "mark/time";
/// The upstream that was the only one at the last start that had just one.
const ONLY_UPSTREAM: &str = "mark/only_upstream";
/// What is written to see whether records can be.
const PROBE: &str = "mark/ready";

/// What a deployment writes down about itself is not swept.
const NEVER: Timestamp = Timestamp(i64::MAX);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    pub record: T,
    pub seen: Seen,
}

/// What of a record has to be known to write it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The store's version of it.
    pub version: u64,
    /// Members that this program does not know.
    unknown: Map<String, Value>,
}

/// What became of one consent page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Approved(IssuedCode),
    Denied,
}

/// A session that clients need not name, for all processes that share the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSession {
    /// As clients hold it; none once it was forgotten.
    pub sealed: Option<String>,
    pub opened_at: Timestamp,
}

/// The keys that the records of a store were made with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    pub keys: Vec<MarkedKey>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedKey {
    pub fingerprint: KeyFingerprint,
    /// When another key became the one that makes. Absent while this one does.
    #[serde(default)]
    pub made_until: Option<Timestamp>,
}

/// How late it is at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatestTime {
    pub latest: Timestamp,
}

/// An upstream by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlyUpstream {
    pub name: String,
}

/// A record that says all it has to say by being there.
#[derive(Serialize, Deserialize)]
struct Present {}

/// Why a record was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// The store has the record, but this program cannot read it. Nothing of its content is said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record {key} cannot be read: {why}")]
pub struct Damaged {
    pub key: String,
    pub why: Unreadable,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is not JSON")]
    NotJson,
    #[error("a member is missing, or has a value that this program does not know")]
    Members,
    #[error("a newer program wrote it, in version {found} of its form; this one knows {VERSION}")]
    Newer { found: u64 },
}

impl Unreadable {
    /// What an operator does about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotJson | Self::Members => {
                "restore the record from a backup of the store; or delete it, and who it belongs \
                 to connects again"
            }
            Self::Newer { .. } => "run the newer program again on this store",
        }
    }
}

/// The error is permanent, so there is no `Retry-After`. The record may be repaired, so the error never
/// claims that what it holds is gone.
impl From<Damaged> for OAuthError {
    fn from(damaged: Damaged) -> Self {
        Self::new(
            ErrorCode::ServerError,
            "a record of this server cannot be read; its operator finds in the log which one, and \
             what to do",
        )
        .in_words(
            "This proxy cannot read one of its own records.",
            "Waiting does not help. Tell the operator of this proxy: its log says which record it \
             is, and what to do.",
        )
        .caused_by(damaged)
    }
}

impl From<ReadError> for OAuthError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Damaged(damaged) => damaged.into(),
        }
    }
}

/// What can be a record.
trait Record: Serialize + DeserializeOwned {
    /// Reads what 0.1.0 wrote where that was no object.
    fn without_envelope(_value: &[u8]) -> Option<Self> {
        None
    }
}

impl Record for Client {}
impl Record for Grant {}
impl Record for StoredSession {}
impl Record for SharedAllowance {}

impl Record for Decision {
    fn without_envelope(value: &[u8]) -> Option<Self> {
        (value == b"\"denied\"").then_some(Self::Denied)
    }
}

impl Record for MadeWith {
    fn without_envelope(value: &[u8]) -> Option<Self> {
        let fingerprint = str::from_utf8(value).ok()?.to_owned().try_into().ok()?;
        let key = MarkedKey {
            fingerprint,
            made_until: None,
        };
        Some(Self { keys: vec![key] })
    }
}

impl Record for LatestTime {
    fn without_envelope(value: &[u8]) -> Option<Self> {
        let latest = serde_json::from_slice(value).ok()?;
        Some(Self { latest })
    }
}

impl Record for OnlyUpstream {
    fn without_envelope(value: &[u8]) -> Option<Self> {
        let name = str::from_utf8(value).ok()?.to_owned();
        Some(Self { name })
    }
}

impl Record for Present {
    fn without_envelope(value: &[u8]) -> Option<Self> {
        value.is_empty().then_some(Self {})
    }
}

/// The records of a store.
#[derive(Clone, Copy)]
pub struct Records<'a>(pub &'a dyn Store);

impl Records<'_> {
    pub async fn client(&self, id: &ClientId) -> Result<Option<Read<Client>>, ReadError> {
        // Ids of ours are short and plain; nothing else is worth asking the store for.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.as_str().len() > 64 || !id.as_str().bytes().all(plain) {
            return Ok(None);
        }
        self.read(&client_key(id)).await
    }

    /// Keeps a new client. `false`: the id was taken.
    pub async fn insert_client(&self, client: &Client) -> Result<bool, StoreError> {
        self.insert(&client_key(&client.client_id), client, client.expires_at)
            .await
    }

    /// Overwrites a client. `false`: it has changed since.
    pub async fn replace_client(&self, seen: &Seen, client: &Client) -> Result<bool, StoreError> {
        self.replace(
            &client_key(&client.client_id),
            seen,
            client,
            client.expires_at,
        )
        .await
    }

    /// What was decided about the authorization that `code` is or would have been for.
    pub async fn decision(&self, code: &str) -> Result<Option<Decision>, ReadError> {
        Ok(self.read(&code_key(code)).await?.map(|read| read.record))
    }

    /// Keeps a decision. `false`: there was one before.
    pub async fn insert_decision(
        &self,
        code: &str,
        decision: &Decision,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.insert(&code_key(code), decision, expires_at + MEMORY)
            .await
    }

    pub async fn grant(&self, family: Family) -> Result<Option<Read<Grant>>, ReadError> {
        self.read(&grant_key(family)).await
    }

    /// Keeps a new grant. `false`: its code was redeemed before.
    pub async fn insert_grant(&self, family: Family, grant: &Grant) -> Result<bool, StoreError> {
        self.insert(&grant_key(family), grant, grant.expires_at() + MEMORY)
            .await
    }

    /// Overwrites a grant. `false`: it has changed since.
    pub async fn replace_grant(
        &self,
        family: Family,
        seen: &Seen,
        grant: &Grant,
    ) -> Result<bool, StoreError> {
        self.replace(&grant_key(family), seen, grant, grant.expires_at() + MEMORY)
            .await
    }

    /// Remembers an assertion of a client. `false`: it came before.
    pub async fn insert_assertion(
        &self,
        client_id: &ClientId,
        once: &Once,
    ) -> Result<bool, StoreError> {
        let key = assertion_key(client_id, &once.jti);
        self.insert(&key, &Present {}, once.until).await
    }

    /// The newest session that was opened under a grant, sealed.
    pub async fn kept_session(
        &self,
        family: Family,
    ) -> Result<Option<Read<StoredSession>>, ReadError> {
        self.read(&session_key(family)).await
    }

    /// Writes that over what was read, if anything was. `false`: it has changed since.
    pub async fn write_kept_session(
        &self,
        family: Family,
        seen: Option<&Seen>,
        session: &StoredSession,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(&session_key(family), seen, session, expires_at)
            .await
    }

    /// What unauthenticated callers have used up of the sign-in attempts that they share.
    pub async fn shared_allowance(&self) -> Result<Option<Read<SharedAllowance>>, ReadError> {
        self.read(SHARED_ALLOWANCE).await
    }

    /// Writes that over what was read, if anything was. `false`: it has changed since.
    pub async fn write_shared_allowance(
        &self,
        seen: Option<&Seen>,
        allowance: SharedAllowance,
    ) -> Result<bool, StoreError> {
        // Once the allowance is whole again there is nothing to remember.
        self.write(SHARED_ALLOWANCE, seen, &allowance, allowance.whole_at)
            .await
    }

    /// The keys that the records were made with.
    pub async fn made_with(&self) -> Result<Option<Read<MadeWith>>, ReadError> {
        self.read(KEYS).await
    }

    /// Writes that over what was read, if anything was. `false`: it has changed since.
    pub async fn write_made_with(
        &self,
        seen: Option<&Seen>,
        keys: &MadeWith,
    ) -> Result<bool, StoreError> {
        self.write(KEYS, seen, keys, NEVER).await
    }

    /// The latest time that was written down.
    pub async fn latest_time(&self) -> Result<Option<Read<LatestTime>>, ReadError> {
        self.read(TIME).await
    }

    /// Writes that over what was read, if anything was. `false`: it has changed since.
    pub async fn write_latest_time(
        &self,
        seen: Option<&Seen>,
        latest: LatestTime,
    ) -> Result<bool, StoreError> {
        self.write(TIME, seen, &latest, NEVER).await
    }

    /// The upstream that was the only one at the last start that had just one.
    pub async fn only_upstream(&self) -> Result<Option<Read<OnlyUpstream>>, ReadError> {
        self.read(ONLY_UPSTREAM).await
    }

    /// Writes that over what was read, if anything was. `false`: it has changed since.
    pub async fn write_only_upstream(
        &self,
        seen: Option<&Seen>,
        only: &OnlyUpstream,
    ) -> Result<bool, StoreError> {
        self.write(ONLY_UPSTREAM, seen, only, NEVER).await
    }

    /// Writes a record for nothing, to see whether the store takes writes. That another process was
    /// quicker is an answer too.
    pub async fn probe(&self, expires_at: Timestamp) -> Result<(), StoreError> {
        let present = encoded(&Present {}, &Map::new())?;
        match self.0.get(PROBE).await? {
            Some(found) => {
                let seen = found.version;
                self.0.replace(PROBE, seen, present, expires_at).await?
            }
            None => self.0.insert(PROBE, present, expires_at).await?,
        };
        Ok(())
    }

    async fn read<T: Record>(&self, key: &str) -> Result<Option<Read<T>>, ReadError> {
        let Some(found) = self.0.get(key).await? else {
            return Ok(None);
        };
        let (record, unknown) = decoded(&found.value).map_err(|why| Damaged {
            key: key.to_owned(),
            why,
        })?;
        let version = found.version;
        Ok(Some(Read {
            record,
            seen: Seen { version, unknown },
        }))
    }

    async fn insert<T: Record>(
        &self,
        key: &str,
        record: &T,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let value = encoded(record, &Map::new())?;
        self.0.insert(key, value, expires_at).await
    }

    async fn replace<T: Record>(
        &self,
        key: &str,
        seen: &Seen,
        record: &T,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let value = encoded(record, &seen.unknown)?;
        self.0.replace(key, seen.version, value, expires_at).await
    }

    /// Inserts or replaces, as there was a record or not.
    async fn write<T: Record>(
        &self,
        key: &str,
        seen: Option<&Seen>,
        record: &T,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        match seen {
            Some(seen) => self.replace(key, seen, record, expires_at).await,
            None => self.insert(key, record, expires_at).await,
        }
    }
}

/// The grant in a value of the store.
pub fn grant_in(value: &[u8]) -> Result<Grant, Unreadable> {
    decoded(value).map(|(grant, _)| grant)
}

/// Everything in a record but its version.
#[derive(Deserialize)]
struct Members<T> {
    #[serde(flatten)]
    record: T,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// A record as it is written.
#[derive(Serialize)]
struct Envelope<'a, T> {
    v: u64,
    #[serde(flatten)]
    record: &'a T,
    #[serde(flatten)]
    unknown: &'a Map<String, Value>,
}

fn encoded<T: Record>(record: &T, unknown: &Map<String, Value>) -> Result<Bytes, StoreError> {
    let envelope = Envelope {
        v: VERSION,
        record,
        unknown,
    };
    serde_json::to_vec(&envelope)
        .map(Bytes::from)
        .map_err(StoreError::new)
}

fn decoded<T: Record>(value: &[u8]) -> Result<(T, Map<String, Value>), Unreadable> {
    let Ok(mut members) = serde_json::from_slice::<Map<String, Value>>(value) else {
        let record = T::without_envelope(value).ok_or(Unreadable::NotJson)?;
        return Ok((record, Map::new()));
    };
    let version = match members.remove("v") {
        None => 1,
        Some(version) => version.as_u64().ok_or(Unreadable::Members)?,
    };
    if version > VERSION {
        return Err(Unreadable::Newer { found: version });
    }
    let members = Members::deserialize(Value::Object(members));
    let Members { record, unknown } = members.map_err(|_| Unreadable::Members)?;
    Ok((record, unknown))
}

fn client_key(id: &ClientId) -> String {
    format!("{CLIENTS}{id}")
}

/// A `jti` is one client's own; no client id has a line break.
fn assertion_key(client_id: &ClientId, jti: &str) -> String {
    let name = format!("{client_id}\n{jti}");
    format!("assertion/{}", token::fingerprint(name.as_bytes()))
}

fn code_key(code: &str) -> String {
    format!("code/{}", token::fingerprint(code.as_bytes()))
}

fn session_key(family: Family) -> String {
    format!("session/{}", token::fingerprint(&family.0))
}

fn grant_key(family: Family) -> String {
    format!("{GRANTS}{}", token::fingerprint(&family.0))
}
