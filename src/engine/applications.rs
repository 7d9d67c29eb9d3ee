//! Applications and their credentials, as the operator makes, changes and ends them.

use uuid::Uuid;

use super::Engine;
use super::callers::lookup_of;
use super::error::{EngineError, EngineResult};
use super::operation::subject;
use crate::formats::SigningSecret;
use crate::ids::{Key, Timestamp, new_id, new_stamp};
use crate::store::applications::{ApplicationRow, CredentialRow, kind};
use crate::store::{StoreError, Transaction, applications};

/// A new application with its secrets, shown once.
pub struct NewApplication {
    /// Id outside.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// Bearer token.
    pub api_key: String,
    /// `whsec_…`
    pub signing_secret: String,
}

fn draw_key(engine: &Engine) -> EngineResult<String> {
    let bytes = engine.core.sealer.random_bytes::<32>().map_err(sealing)?;
    Ok(format!("rbk_{}", hex::encode(bytes)))
}

/// A fresh signing secret.
pub(super) fn draw_secret(engine: &Engine) -> EngineResult<SigningSecret> {
    let bytes = engine.core.sealer.random_bytes::<32>().map_err(sealing)?;
    SigningSecret::from_key(&bytes)
        .map_err(|error| EngineError::Store(StoreError::Corrupt(error.to_string())))
}

fn sealing(error: super::sealer::SealError) -> EngineError {
    EngineError::Store(StoreError::Corrupt(error.to_string()))
}

/// The place name under which signing secrets are sealed.
pub(super) const PLACE: &str = "signing secret";

/// Whether a credential works at a time.
pub(super) fn is_active(row: &CredentialRow, now: Timestamp) -> bool {
    row.revoked_at.is_none() && row.expires_at.is_none_or(|end| end > now.0)
}

fn key_row(application: Key, api_key: &str, scopes: &str, now: Timestamp) -> CredentialRow {
    CredentialRow {
        id: 0,
        public_id: new_id().as_bytes().to_vec(),
        application_id: application,
        kind: kind::API_KEY.to_owned(),
        lookup: Some(lookup_of(api_key)),
        sealed: None,
        scopes: scopes.to_owned(),
        created_at: now.0,
        last_used_at: None,
        expires_at: None,
        revoked_at: None,
    }
}

/// Whether an earlier run of the same request has stored its credential: the commit got no answer.
fn was_stored(transaction: &Transaction<'_>, known: &[CredentialRow], new: &CredentialRow) -> bool {
    transaction.is_repeated() && known.iter().any(|row| row.public_id == new.public_id)
}

fn secret_row(
    engine: &Engine,
    secret: &SigningSecret,
    now: Timestamp,
) -> EngineResult<CredentialRow> {
    let sealed = engine.core.sealer.seal(PLACE, secret.text().as_bytes()).map_err(sealing)?;
    Ok(CredentialRow {
        kind: kind::SIGNING_SECRET.to_owned(),
        lookup: None,
        sealed: Some(sealed),
        ..key_row(0, "", "", now)
    })
}

impl Engine {
    /// Makes an application with one API key and one signing secret.
    pub async fn create_application(
        &self,
        name: &str,
        scopes: &[String],
        expires_at: Option<Timestamp>,
        rate: Option<(i64, i64)>,
    ) -> EngineResult<NewApplication> {
        let name = name.trim();
        if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
            return Err(EngineError::Invalid(format!(
                "name {name:?} is not allowed: 1 to 200 bytes without control characters"
            )));
        }
        let now = self.core.clock.now();
        let id = new_id();
        let api_key = draw_key(self)?;
        let secret = draw_secret(self)?;
        let mut key = key_row(0, &api_key, &scopes.join(","), now);
        key.expires_at = expires_at.map(|time| time.0);
        let signing = secret_row(self, &secret, now)?;
        let row = ApplicationRow {
            id: 0,
            public_id: id.as_bytes().to_vec(),
            name: name.to_owned(),
            rate_per_second: rate.map(|rate| rate.0),
            rate_burst: rate.map(|rate| rate.1),
            created_at: now.0,
            disabled_at: None,
        };
        self.custom(vec![subject("application", id)], move |transaction, _, _| {
            if transaction.is_repeated() && applications::find(transaction, id)?.is_some() {
                return Ok(());
            }
            let mut row = row.clone();
            row.id = transaction.key()?;
            applications::insert(transaction, &row)?;
            for credential in [&key, &signing] {
                let mut credential = credential.clone();
                credential.id = transaction.key()?;
                credential.application_id = row.id;
                applications::insert_credential(transaction, &credential)?;
            }
            Ok(())
        })
        .await?;
        Ok(NewApplication {
            id,
            name: name.to_owned(),
            api_key,
            signing_secret: secret.text().to_owned(),
        })
    }

    /// An application by its id or, when only one has it, its name.
    pub async fn find_application(&self, id_or_name: &str) -> EngineResult<ApplicationRow> {
        let name = id_or_name.to_owned();
        let parsed = crate::ids::parse_id(id_or_name);
        let found = self
            .store
            .read(move |connection| match parsed {
                Some(id) => Ok(applications::find(connection, id)?.into_iter().collect()),
                None => applications::named(connection, &name),
            })
            .await?;
        if found.len() > 1 {
            return Err(EngineError::Invalid(format!(
                "{} applications are named `{id_or_name}`; use an id from `ringback apps list`",
                found.len()
            )));
        }
        found.into_iter().next().ok_or_else(|| EngineError::not_found("application", id_or_name))
    }

    /// All applications with their credentials.
    pub async fn list_applications(
        &self,
    ) -> EngineResult<Vec<(ApplicationRow, Vec<CredentialRow>)>> {
        let list = self
            .store
            .read(|connection| {
                let mut all = Vec::new();
                for row in applications::list(connection)? {
                    let mut credentials =
                        applications::credentials(connection, row.id, kind::API_KEY)?;
                    credentials.extend(applications::credentials(
                        connection,
                        row.id,
                        kind::SIGNING_SECRET,
                    )?);
                    all.push((row, credentials));
                }
                Ok(all)
            })
            .await?;
        Ok(list)
    }

    /// A new API key; the older ones end after the overlap, or stay when there is none to wait for.
    pub async fn add_key(
        &self,
        application: Key,
        scopes: Option<Vec<String>>,
        retire_others_after: Option<i64>,
        expires_at: Option<Timestamp>,
    ) -> EngineResult<String> {
        let now = self.core.clock.now();
        let api_key = draw_key(self)?;
        let mut row = key_row(application, &api_key, "", now);
        row.expires_at = expires_at.map(|time| time.0);
        let end = retire_others_after.map(|seconds| now.plus_millis(seconds.max(0) * 1_000).0);
        self.custom(vec![subject("credentials", application)], move |transaction, _, _| {
            let old = applications::credentials(transaction, application, kind::API_KEY)?;
            if was_stored(transaction, &old, &row) {
                return Ok(());
            }
            let mut row = row.clone();
            row.id = transaction.key()?;
            row.scopes = match &scopes {
                Some(scopes) => scopes.join(","),
                None => old.first().map_or_else(|| "*".to_owned(), |key| key.scopes.clone()),
            };
            if let Some(end) = end {
                let keys: Vec<Key> = old.iter().map(|key| key.id).collect();
                applications::expire_credentials(transaction, &keys, end)?;
            }
            applications::insert_credential(transaction, &row)?;
            Ok(())
        })
        .await?;
        Ok(api_key)
    }

    /// Ends one credential at once, an API key or a signing secret. The last secret that signs
    /// stays.
    pub async fn revoke_credential(&self, application: Key, id: Uuid) -> EngineResult<()> {
        self.custom(vec![subject("credentials", application)], move |transaction, _, now| {
            let secrets =
                applications::credentials(transaction, application, kind::SIGNING_SECRET)?;
            let named = |row: &&CredentialRow| row.public_id == id.as_bytes();
            let signs = secrets.iter().find(named).is_some_and(|row| is_active(row, now));
            // One that ends by itself is no other to rely on.
            let stays = |row: &CredentialRow| is_active(row, now) && row.expires_at.is_none();
            if signs && !secrets.iter().any(|row| stays(row) && !named(&row)) {
                return Err(EngineError::LastSecret(id));
            }
            if applications::revoke_credential(transaction, application, None, id, now.0)? {
                applications::stamp(transaction, application, new_stamp())?;
                Ok(())
            } else {
                Err(EngineError::not_found("credential", id))
            }
        })
        .await
    }

    /// A new signing secret; the older ones sign beside it until the overlap is over.
    pub async fn rotate_secret(
        &self,
        application: Key,
        overlap_seconds: i64,
    ) -> EngineResult<String> {
        let now = self.core.clock.now();
        let secret = draw_secret(self)?;
        let mut row = secret_row(self, &secret, now)?;
        row.application_id = application;
        let end = now.plus_millis(overlap_seconds.max(0) * 1_000).0;
        self.custom(vec![subject("credentials", application)], move |transaction, _, _| {
            let old = applications::credentials(transaction, application, kind::SIGNING_SECRET)?;
            if was_stored(transaction, &old, &row) {
                return Ok(());
            }
            let mut row = row.clone();
            row.id = transaction.key()?;
            let keys: Vec<Key> = old.iter().map(|key| key.id).collect();
            applications::expire_credentials(transaction, &keys, end)?;
            applications::insert_credential(transaction, &row)?;
            // What nodes remember of the secrets is old from here on.
            applications::stamp(transaction, application, new_stamp())?;
            Ok(())
        })
        .await?;
        Ok(secret.text().to_owned())
    }

    /// Switches an application off or on. Its keys are refused while it is off.
    pub async fn set_application_disabled(
        &self,
        application: Key,
        disabled: bool,
    ) -> EngineResult<()> {
        self.custom(vec![subject("application", application)], move |transaction, _, now| {
            applications::set_disabled(transaction, application, disabled.then_some(now.0))?;
            Ok(())
        })
        .await
    }

    /// Sets the requests a second of an application; `None` for the server's default.
    pub async fn set_application_rate(
        &self,
        application: Key,
        rate: Option<(i64, i64)>,
    ) -> EngineResult<()> {
        self.custom(vec![subject("application", application)], move |transaction, _, _| {
            let (per_second, burst) = (rate.map(|rate| rate.0), rate.map(|rate| rate.1));
            applications::set_rate(transaction, application, per_second, burst)?;
            Ok(())
        })
        .await
    }
}
