//! Typed records over the five verbs of the store: the key of each, its lifetime, its version.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    identity::backoff::Strangers,
    oauth::{
        access_token::Family, authorization_code::IssuedCode, client::Client,
        client_assertion::Once, grant::Grant, identifiers::ClientId,
    },
    ports::{Store, StoreError, Timestamp},
    token,
};

/// How long a record outlives its last use, so that a late repetition is still recognised.
const MEMORY: std::time::Duration = std::time::Duration::from_hours(1);

/// What the keys of registered clients start with.
pub const CLIENTS: &str = "client/";
/// What the keys of grants start with.
pub const GRANTS: &str = "grant/";
/// The version at which a client is stored that nothing was ever redeemed for: it is written again
/// at its first grant. So whoever has to make room can tell it by the store's own columns.
pub const UNUSED_CLIENT: u64 = 1;

/// A record and the version that it was read at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    pub record: T,
    pub version: u64,
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

/// The records of a store.
#[derive(Clone, Copy)]
pub struct Records<'a>(pub &'a dyn Store);

impl Records<'_> {
    pub async fn client(&self, id: &ClientId) -> Result<Option<Read<Client>>, StoreError> {
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
    pub async fn replace_client(&self, seen: u64, client: &Client) -> Result<bool, StoreError> {
        self.replace(
            &client_key(&client.client_id),
            seen,
            client,
            client.expires_at,
        )
        .await
    }

    /// What was decided about the authorization that `code` is or would have been for.
    pub async fn decision(&self, code: &str) -> Result<Option<Decision>, StoreError> {
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

    pub async fn grant(&self, family: Family) -> Result<Option<Read<Grant>>, StoreError> {
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
        seen: u64,
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
        self.0.insert(&key, Bytes::new(), once.until).await
    }

    /// The newest session that was opened under a grant, sealed.
    pub async fn kept_session(
        &self,
        family: Family,
    ) -> Result<Option<Read<StoredSession>>, StoreError> {
        self.read(&session_key(family)).await
    }

    /// Writes that over what was read at version `seen`, if anything was. `false`: it has changed
    /// since.
    pub async fn write_kept_session(
        &self,
        family: Family,
        seen: Option<u64>,
        session: &StoredSession,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let key = session_key(family);
        match seen {
            Some(seen) => self.replace(&key, seen, session, expires_at).await,
            None => self.insert(&key, session, expires_at).await,
        }
    }

    /// What strangers have used up of the attempts to sign in that all of them share.
    pub async fn strangers(&self) -> Result<Option<Read<Strangers>>, StoreError> {
        self.read(STRANGERS).await
    }

    /// Writes that over what was read at version `seen`, if anything was. `false`: it has changed
    /// since.
    pub async fn write_strangers(
        &self,
        seen: Option<u64>,
        strangers: Strangers,
    ) -> Result<bool, StoreError> {
        // Once the allowance is whole again there is nothing to remember.
        let expires_at = strangers.whole_at;
        match seen {
            Some(seen) => self.replace(STRANGERS, seen, &strangers, expires_at).await,
            None => self.insert(STRANGERS, &strangers, expires_at).await,
        }
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Read<T>>, StoreError> {
        let Some(found) = self.0.get(key).await? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&found.value).map_err(StoreError::new)?;
        Ok(Some(Read {
            record,
            version: found.version,
        }))
    }

    async fn insert<T: Serialize>(
        &self,
        key: &str,
        record: &T,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.0.insert(key, encoded(record)?, expires_at).await
    }

    async fn replace<T: Serialize>(
        &self,
        key: &str,
        seen: u64,
        record: &T,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.0
            .replace(key, seen, encoded(record)?, expires_at)
            .await
    }
}

/// The key of the one record about strangers who try to sign in.
const STRANGERS: &str = "mark/strangers";

fn encoded<T: Serialize>(record: &T) -> Result<Bytes, StoreError> {
    serde_json::to_vec(record)
        .map(Bytes::from)
        .map_err(StoreError::new)
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
