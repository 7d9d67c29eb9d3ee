//! What signs deliveries: read from stored credentials, kept open by those who send. Must not know
//! how keys are made, shown or ended.

use super::corrupt;
use super::secrets::{SecretKind, place_of};
use crate::engine::Engine;
use crate::engine::applications::is_active;
use crate::engine::error::EngineResult;
use crate::formats::{Ed25519Key, SigningKeys, SigningSecret};
use crate::ids::{Key, Timestamp};
use crate::store::applications;
use crate::store::applications::{CredentialRow, kind};

/// What signs deliveries, and until when each of them does.
pub struct KeyRing {
    /// Shared secrets, the newest first.
    pub secrets: Vec<Dated<SigningSecret>>,
    /// Key pairs, the newest first.
    pub ed25519: Vec<Dated<Ed25519Key>>,
}

/// A key with its end.
pub struct Dated<T> {
    /// Key of its row.
    pub credential: Key,
    /// When it stops to sign.
    pub expires_at: Option<Timestamp>,
    /// The key.
    pub value: T,
}

impl KeyRing {
    /// Those that sign at a time.
    pub fn at(&self, now: Timestamp) -> SigningKeys {
        SigningKeys { secrets: signing(&self.secrets, now), ed25519: signing(&self.ed25519, now) }
    }

    /// The rows of those that sign at a time.
    pub fn credentials_at(&self, now: Timestamp) -> Vec<Key> {
        let secrets = self.secrets.iter().filter(|dated| dated.signs_at(now));
        let pairs = self.ed25519.iter().filter(|dated| dated.signs_at(now));
        let secrets = secrets.map(|dated| dated.credential);
        secrets.chain(pairs.map(|dated| dated.credential)).collect()
    }
}

impl<T> Dated<T> {
    fn signs_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| end > now)
    }
}

fn signing<T: Clone>(all: &[Dated<T>], now: Timestamp) -> Vec<T> {
    all.iter().filter(|dated| dated.signs_at(now)).map(|dated| dated.value.clone()).collect()
}

impl Engine {
    /// What signs an endpoint's deliveries.
    pub async fn endpoint_keys(&self, endpoint: Key) -> EngineResult<KeyRing> {
        let rows = self
            .store
            .read(move |connection| applications::endpoint_credentials(connection, endpoint))
            .await?;
        Ok(self.key_ring(&rows))
    }

    /// What signs deliveries to an application's callbacks.
    pub async fn application_keys(&self, application: Key) -> EngineResult<KeyRing> {
        let rows = self
            .store
            .read(move |connection| {
                applications::credentials(connection, application, kind::SIGNING_SECRET)
            })
            .await?;
        Ok(self.key_ring(&rows))
    }

    /// One that cannot be read is left out: the others still sign.
    fn key_ring(&self, rows: &[CredentialRow]) -> KeyRing {
        let mut keys = KeyRing { secrets: Vec::new(), ed25519: Vec::new() };
        let now = self.now();
        for row in rows.iter().filter(|row| is_active(row, now)) {
            let (credential, expires_at) = (row.id, row.expires_at.map(Timestamp));
            let read = match SecretKind::read(row) {
                SecretKind::Hmac => self.open_secret(row).map(|value| {
                    keys.secrets.push(Dated { credential, expires_at, value });
                }),
                SecretKind::Ed25519 => self.open_pair(row).map(|value| {
                    keys.ed25519.push(Dated { credential, expires_at, value });
                }),
            };
            if read.is_err() {
                tracing::error!(credential, "a signing secret cannot be read");
            }
        }
        keys
    }

    fn open_secret(&self, row: &CredentialRow) -> EngineResult<SigningSecret> {
        SigningSecret::parse(&self.open_text(row)?).map_err(|error| corrupt(error.to_string()))
    }

    pub(super) fn open_pair(&self, row: &CredentialRow) -> EngineResult<Ed25519Key> {
        Ed25519Key::parse(&self.open_text(row)?).map_err(|error| corrupt(error.to_string()))
    }

    fn open_text(&self, row: &CredentialRow) -> EngineResult<String> {
        let sealed = row.sealed.as_deref().unwrap_or_default();
        let plain = self.core.sealer.open(place_of(SecretKind::read(row)), sealed);
        let plain = plain.map_err(|error| corrupt(error.to_string()))?;
        String::from_utf8(plain).map_err(|error| corrupt(error.to_string()))
    }
}
