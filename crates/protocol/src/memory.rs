//! A [`Store`] in memory: for tests, and the plainest reading of its contract.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::ports::{KEYS_PER_PAGE, Store, StoreError, Timestamp, Versioned};

/// Records in a map; gone with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<BTreeMap<String, Record>>,
}

#[derive(Debug)]
struct Record {
    versioned: Versioned,
    expires_at: Timestamp,
}

impl MemoryStore {
    /// Drops what expired before `now`.
    pub fn sweep(&self, now: Timestamp) {
        self.records().retain(|_, record| record.expires_at > now);
    }

    /// Every key and value, for tests that look for what must not be there.
    pub fn dump(&self) -> Vec<(String, Bytes)> {
        let records = self.records();
        records
            .iter()
            .map(|(key, record)| (key.clone(), record.versioned.value.clone()))
            .collect()
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        Ok(self
            .records()
            .get(key)
            .map(|record| record.versioned.clone()))
    }

    async fn insert(
        &self,
        key: &str,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut records = self.records();
        if records.contains_key(key) {
            return Ok(false);
        }
        let versioned = Versioned { value, version: 1 };
        records.insert(
            key.to_owned(),
            Record {
                versioned,
                expires_at,
            },
        );
        Ok(true)
    }

    async fn replace(
        &self,
        key: &str,
        seen: u64,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        match self.records().get_mut(key) {
            Some(record) if record.versioned.version == seen => {
                *record = Record {
                    versioned: Versioned {
                        value,
                        version: seen + 1,
                    },
                    expires_at,
                };
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.records().remove(key).is_some())
    }

    async fn keys(&self, prefix: &str, after: Option<&str>) -> Result<Vec<String>, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let records = self.records();
        Ok(records
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix))
            .take(KEYS_PER_PAGE)
            .cloned()
            .collect())
    }
}
