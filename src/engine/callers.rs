//! Who calls: the holder of an API key, and what it may do. Looked up for every request.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Engine;
use super::error::EngineResult;
use super::operation::subject;
use super::stored::read_id;
use crate::ids::{Key, Timestamp};
use crate::store::applications;

/// Every scope there is.
pub const SCOPES: [&str; 6] =
    ["jobs:read", "jobs:write", "files:read", "files:write", "deliveries:read", "deliveries:write"];

/// Who calls, and what they may do.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Key of the application.
    pub application: Key,
    /// Its id outside.
    pub application_id: Uuid,
    /// Key of the credential.
    pub credential: Key,
    /// Its id outside.
    pub credential_id: Uuid,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
    /// Requests a second of the application's own.
    pub rate_per_second: Option<u32>,
    /// At once, of the application's own.
    pub rate_burst: Option<u32>,
    /// Why it may do nothing, if so.
    pub barred: Option<Barred>,
}

/// Why a known key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// The application is switched off.
    Disabled,
}

impl Caller {
    /// Whether a scope is granted; `jobs` grants `jobs:read` and `jobs:write`, `*` everything.
    pub fn may(&self, scope: &str) -> bool {
        let family = scope.split(':').next().unwrap_or(scope);
        self.scopes.iter().any(|granted| granted == scope || granted == family || granted == "*")
    }

    /// `urn:app:<id>`
    pub fn issuer(&self) -> String {
        format!("urn:app:{}", self.application_id)
    }

    /// `urn:credential:<id>`
    pub fn actor(&self) -> String {
        format!("urn:credential:{}", self.credential_id)
    }
}

/// Parses a comma-separated list of scopes.
pub fn parse_scopes(text: &str) -> Result<Vec<String>, String> {
    let families = ["jobs", "files", "deliveries", "*"];
    let mut scopes = Vec::new();
    for scope in text.split(',').map(str::trim).filter(|scope| !scope.is_empty()) {
        if !SCOPES.contains(&scope) && !families.contains(&scope) {
            return Err(format!(
                "scope `{scope}` is not known; allowed: {}, {}",
                families.join(", "),
                SCOPES.join(", ")
            ));
        }
        scopes.push(scope.to_owned());
    }
    if scopes.is_empty() { Err("no scope given".to_owned()) } else { Ok(scopes) }
}

/// The hash by which an API key is found.
pub fn lookup_of(api_key: &str) -> String {
    hex::encode(Sha256::digest(api_key.as_bytes()))
}

impl Engine {
    /// Who holds this API key, as the database has it now. `None` when nobody does.
    pub async fn authenticate(&self, lookup: String) -> EngineResult<Option<Caller>> {
        let now = self.core.clock.now();
        let found = self
            .store
            .read(move |connection| {
                let Some(credential) = applications::find_credential(connection, &lookup)? else {
                    return Ok(None);
                };
                let application = applications::get(connection, credential.application_id)?;
                Ok(application.map(|application| (application, credential)))
            })
            .await?;
        let Some((application, credential)) = found else { return Ok(None) };
        let barred = if credential.revoked_at.is_some() {
            Some(Barred::Revoked)
        } else if credential.expires_at.is_some_and(|end| end <= now.0) {
            Some(Barred::Expired)
        } else if application.disabled_at.is_some() {
            Some(Barred::Disabled)
        } else {
            None
        };
        Ok(Some(Caller {
            application: application.id,
            application_id: read_id(&application.public_id)?,
            credential: credential.id,
            credential_id: read_id(&credential.public_id)?,
            scopes: credential.scopes.split(',').map(str::to_owned).collect(),
            expires_at: credential.expires_at.map(Timestamp),
            rate_per_second: application.rate_per_second.and_then(|rate| u32::try_from(rate).ok()),
            rate_burst: application.rate_burst.and_then(|rate| u32::try_from(rate).ok()),
            barred,
        }))
    }

    /// Notes when credentials were last used.
    pub async fn touch_credentials(&self, used: Vec<(Key, Timestamp)>) -> EngineResult<()> {
        let mut used: Vec<(Key, i64)> = used.into_iter().map(|(key, at)| (key, at.0)).collect();
        // In one order on every node, so that no two wait for each other.
        used.sort_unstable();
        self.custom(vec![subject("credential uses", 0)], move |transaction, _, _| {
            applications::touch_credentials(transaction, &used)?;
            Ok(())
        })
        .await
    }
}
