//! The shared secrets and ed25519 keys of an endpoint: made, shown, ended. Several may sign side by
//! side while receivers change over. What those who send read of them is in `key_ring`.

use serde::Serialize;
use uuid::Uuid;

use super::{corrupt, own, subjects};
use crate::engine::Engine;
use crate::engine::applications::{PLACE as SECRET_PLACE, draw_secret, is_active};
use crate::engine::callers::Caller;
use crate::engine::core::Core;
use crate::engine::error::{EngineError, EngineResult};
use crate::engine::stored::read_id;
use crate::formats::{Ed25519Key, Signature, SigningSecret};
use crate::ids::{Key, Timestamp, new_id, new_stamp};
use crate::store::applications::{CredentialRow, kind};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreResult, Transaction, applications, receivers};

/// Keys of one kind that sign for one endpoint at once at most: each makes every request longer.
const MOST_KEYS: usize = 10;
/// Keys of one endpoint that are still listed after their end.
const MOST_ENDED: usize = 20;

/// The place name under which private keys are sealed.
const KEY_PLACE: &str = "signing key";

/// The two kinds of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretKind {
    /// Shared with the receiver.
    Hmac,
    /// Of which the receiver knows the public half.
    Ed25519,
}

impl SecretKind {
    fn of(signature: Signature) -> SecretKind {
        match signature {
            Signature::Standard | Signature::Hex => SecretKind::Hmac,
            Signature::Ed25519 => SecretKind::Ed25519,
        }
    }

    fn stored(self) -> &'static str {
        match self {
            SecretKind::Hmac => kind::ENDPOINT_SECRET,
            SecretKind::Ed25519 => kind::ENDPOINT_KEY,
        }
    }

    pub(super) fn read(row: &CredentialRow) -> SecretKind {
        if row.kind == kind::ENDPOINT_KEY { SecretKind::Ed25519 } else { SecretKind::Hmac }
    }
}

/// A key that was just made.
#[derive(Clone)]
pub struct NewSecret {
    /// Id.
    pub id: Uuid,
    /// Shared secret or key pair.
    pub kind: SecretKind,
    /// When made.
    pub date_created: Timestamp,
    /// What verifies with it: `whsec_…`, which is shown once, or the public `whpk_…`.
    pub shown: String,
    /// What signs with it.
    text: String,
}

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "NewSecret({})", self.id)
    }
}

/// A key as the API lists it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretView {
    /// Id.
    pub id: Uuid,
    /// Shared secret or key pair.
    pub kind: SecretKind,
    /// When made.
    pub date_created: Timestamp,
    /// Kept to the minute.
    pub date_last_used: Option<Timestamp>,
    /// When it stops to sign.
    pub date_expires: Option<Timestamp>,
    /// Whether it signs now.
    pub active: bool,
}

/// A public key as the API lists it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicKeyView {
    /// Id.
    pub id: Uuid,
    /// `whpk_…`
    pub public_key: String,
    /// When made.
    pub date_created: Timestamp,
    /// When it stops to sign.
    pub date_expires: Option<Timestamp>,
}

fn active_of(rows: &[CredentialRow], kind: SecretKind, now: Timestamp) -> usize {
    rows.iter().filter(|row| SecretKind::read(row) == kind && is_active(row, now)).count()
}

/// Whether a key of a kind goes on signing until somebody ends it. One that runs out by itself is
/// none to rely on.
fn lasts(row: &CredentialRow, kind: SecretKind) -> bool {
    SecretKind::read(row) == kind && row.revoked_at.is_none() && row.expires_at.is_none()
}

/// Stores a key that a change of the signature may need, unless one of its kind lasts; whether its
/// owner has to be shown it.
pub(super) fn provide(
    transaction: &mut Transaction<'_>,
    core: &Core,
    endpoint: &ReceiverRow,
    secret: &NewSecret,
    now: Timestamp,
) -> StoreResult<bool> {
    let known = applications::endpoint_credentials(transaction, endpoint.id)?;
    if was_stored(transaction, &known, secret) {
        return Ok(true);
    }
    if known.iter().any(|row| lasts(row, secret.kind)) {
        return Ok(false);
    }
    forget_ended(transaction, &known, now)?;
    insert(transaction, core, endpoint, secret, now)?;
    Ok(true)
}

/// Whether an earlier run of the same request has stored its key: the commit got no answer.
fn was_stored(transaction: &Transaction<'_>, known: &[CredentialRow], secret: &NewSecret) -> bool {
    transaction.is_repeated() && known.iter().any(|row| row.public_id == secret.id.as_bytes())
}

/// Removes keys that have ended but for the last few, so that no number of rotations makes the list
/// longer and longer.
fn forget_ended(
    transaction: &mut Transaction<'_>,
    known: &[CredentialRow],
    now: Timestamp,
) -> StoreResult<()> {
    let mut ended: Vec<&CredentialRow> = known.iter().filter(|row| !is_active(row, now)).collect();
    ended.sort_by_key(|row| std::cmp::Reverse(row.revoked_at.or(row.expires_at)));
    let old: Vec<Key> = ended.iter().skip(MOST_ENDED).map(|row| row.id).collect();
    applications::delete_credentials(transaction, &old)
}

/// Stores a key of an endpoint.
pub(super) fn insert(
    transaction: &mut Transaction<'_>,
    core: &Core,
    endpoint: &ReceiverRow,
    secret: &NewSecret,
    now: Timestamp,
) -> StoreResult<()> {
    let place = place_of(secret.kind);
    let sealed = core.sealer.seal(place, secret.text.as_bytes());
    let sealed = sealed.map_err(|error| crate::store::StoreError::Corrupt(error.to_string()))?;
    let row = CredentialRow {
        id: transaction.key()?,
        public_id: secret.id.as_bytes().to_vec(),
        application_id: endpoint.application_id,
        kind: secret.kind.stored().to_owned(),
        lookup: None,
        sealed: Some(sealed),
        scopes: String::new(),
        created_at: now.0,
        last_used_at: None,
        expires_at: None,
        revoked_at: None,
    };
    applications::insert_endpoint_credential(transaction, endpoint.id, &row)
}

pub(super) fn place_of(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::Hmac => SECRET_PLACE,
        SecretKind::Ed25519 => KEY_PLACE,
    }
}

impl Engine {
    /// Draws a key that such a signature needs.
    pub(super) fn draw_secret_for(&self, signature: Signature) -> EngineResult<NewSecret> {
        let kind = SecretKind::of(signature);
        let (shown, text) = match kind {
            SecretKind::Hmac => {
                let secret = draw_secret(self)?;
                (secret.text().to_owned(), secret.text().to_owned())
            }
            SecretKind::Ed25519 => {
                let bytes = self.core.sealer.random_bytes::<32>();
                let bytes = bytes.map_err(|error| corrupt(error.to_string()))?;
                let pair = Ed25519Key::from_seed(&bytes);
                let pair = pair.map_err(|error| corrupt(error.to_string()))?;
                (pair.public_text().to_owned(), pair.text().to_owned())
            }
        };
        Ok(NewSecret { id: new_id(), kind, date_created: self.now(), shown, text })
    }

    /// Keys of the caller's endpoint, the newest first.
    pub async fn endpoint_secrets(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> EngineResult<Vec<SecretView>> {
        let endpoint = self.endpoint_row(caller, id).await?;
        let now = self.now();
        let rows = self
            .store
            .read(move |connection| applications::endpoint_credentials(connection, endpoint.id))
            .await?;
        rows.iter()
            .map(|row| {
                Ok(SecretView {
                    id: read_id(&row.public_id)?,
                    kind: SecretKind::read(row),
                    date_created: Timestamp(row.created_at),
                    date_last_used: row.last_used_at.map(Timestamp),
                    date_expires: row.revoked_at.or(row.expires_at).map(Timestamp),
                    active: is_active(row, now),
                })
            })
            .collect()
    }

    /// A further key of the kind that the endpoint's signature needs: `given` by the caller, or
    /// drawn. With `overlap_seconds` the others of the kind stop to sign after it; while as many sign
    /// as may, only one without an overlap is taken, since none is ended sooner than was promised.
    pub async fn add_endpoint_secret(
        &self,
        caller: &Caller,
        id: Uuid,
        given: Option<SigningSecret>,
        overlap_seconds: Option<i64>,
    ) -> EngineResult<NewSecret> {
        let endpoint = self.endpoint_row(caller, id).await?;
        let signature = Signature::parse(&endpoint.signature).unwrap_or_default();
        let kind = SecretKind::of(signature);
        let mut secret = self.draw_secret_for(signature)?;
        if let Some(given) = given {
            if kind == SecretKind::Ed25519 {
                return Err(EngineError::Invalid(
                    "secret is not allowed: this endpoint signs with ed25519 keys, which are \
                     made here"
                        .to_owned(),
                ));
            }
            secret.shown = given.text().to_owned();
            secret.text = given.text().to_owned();
        }
        let (application, drawn) = (caller.application, secret.clone());
        self.custom(subjects(application, endpoint.id), move |transaction, core, now| {
            let mut row = own(transaction, application, id)?;
            let known = applications::endpoint_credentials(transaction, row.id)?;
            if was_stored(transaction, &known, &drawn) {
                return Ok(());
            }
            if overlap_seconds != Some(0) && active_of(&known, kind, now) >= MOST_KEYS {
                return Err(EngineError::TooManySecrets(MOST_KEYS));
            }
            forget_ended(transaction, &known, now)?;
            if let Some(seconds) = overlap_seconds {
                let others = known.iter().filter(|row| SecretKind::read(row) == kind);
                let others: Vec<Key> = others.map(|row| row.id).collect();
                let end = now.plus_millis(seconds.max(0) * 1_000).0;
                applications::expire_credentials(transaction, &others, end)?;
            }
            insert(transaction, core, &row, &drawn, now)?;
            stamp(transaction, &mut row)?;
            Ok(())
        })
        .await?;
        Ok(secret)
    }

    /// Ends one key of the caller's endpoint at once. The last one of the kind in use that has no
    /// end stays: the others stop by themselves, and then nothing would sign.
    pub async fn revoke_endpoint_secret(
        &self,
        caller: &Caller,
        id: Uuid,
        secret: Uuid,
    ) -> EngineResult<()> {
        let application = caller.application;
        let endpoint = self.endpoint_row(caller, id).await?;
        self.custom(subjects(application, endpoint.id), move |transaction, _, now| {
            let mut row = own(transaction, application, id)?;
            let known = applications::endpoint_credentials(transaction, row.id)?;
            let found = known.iter().find(|row| row.public_id == secret.as_bytes());
            if found.is_some_and(|row| row.revoked_at.is_some()) && transaction.is_repeated() {
                return Ok(());
            }
            let Some(found) = found.filter(|row| row.revoked_at.is_none()) else {
                return Err(EngineError::not_found("secret", secret));
            };
            let in_use = SecretKind::of(Signature::parse(&row.signature).unwrap_or_default());
            let is_another = |row: &&CredentialRow| row.id != found.id && lasts(row, in_use);
            let others = known.iter().filter(is_another).count();
            if SecretKind::read(found) == in_use && is_active(found, now) && others == 0 {
                return Err(EngineError::LastSecret(secret));
            }
            let endpoint = Some(row.id);
            applications::revoke_credential(transaction, application, endpoint, secret, now.0)?;
            stamp(transaction, &mut row)?;
            Ok(())
        })
        .await
    }

    /// Public keys of the caller's endpoint that sign now, the newest first.
    pub async fn public_keys(&self, caller: &Caller, id: Uuid) -> EngineResult<Vec<PublicKeyView>> {
        let endpoint = self.endpoint_row(caller, id).await?;
        let now = self.now();
        let rows = self
            .store
            .read(move |connection| applications::endpoint_credentials(connection, endpoint.id))
            .await?;
        let mut keys = Vec::new();
        for row in rows.iter().filter(|row| is_active(row, now)) {
            if SecretKind::read(row) == SecretKind::Ed25519 {
                keys.push(PublicKeyView {
                    id: read_id(&row.public_id)?,
                    public_key: self.open_pair(row)?.public_text().to_owned(),
                    date_created: Timestamp(row.created_at),
                    date_expires: row.expires_at.map(Timestamp),
                });
            }
        }
        if keys.is_empty() { Err(EngineError::NoPublicKey(id)) } else { Ok(keys) }
    }
}

/// Makes every node read the endpoint's keys anew.
fn stamp(transaction: &mut Transaction<'_>, row: &mut ReceiverRow) -> StoreResult<()> {
    row.version = new_stamp();
    receivers::update_endpoint(transaction, row)?;
    applications::stamp(transaction, row.application_id, new_stamp())
}
