//! Signing secrets by application, kept open for a few seconds so that a rotation is soon seen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Engine, EngineResult};
use crate::formats::SigningKeys;
use crate::ids::Key;

const KEPT: Duration = Duration::from_secs(2);
const KEPT_APPLICATIONS: usize = 10_000;

type Known = HashMap<Key, (Instant, Arc<SigningKeys>)>;

#[derive(Default)]
pub(super) struct Secrets {
    known: Mutex<Known>,
}

impl Secrets {
    /// The secrets that sign now, the newest first.
    pub(super) async fn of(
        &self,
        engine: &Engine,
        application: Key,
    ) -> EngineResult<Arc<SigningKeys>> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&application)
            .filter(|(at, _)| at.elapsed() < KEPT)
            .map(|(_, secrets)| Arc::clone(secrets));
        if let Some(secrets) = known {
            return Ok(secrets);
        }
        let secrets = Arc::new(SigningKeys::from(engine.signing_secrets(application).await?));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT_APPLICATIONS {
            known.clear();
        }
        known.insert(application, (Instant::now(), Arc::clone(&secrets)));
        Ok(secrets)
    }
}
