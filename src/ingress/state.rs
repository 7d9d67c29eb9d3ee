//! What all requests share.

use std::sync::Arc;

use actix_web::http::header::HeaderMap;
use actix_web::{HttpMessage, HttpRequest};

use super::auth::Authenticator;
use super::health::Scrape;
use super::limits::{Limits, Standing};
use super::openapi::serve::Texts;
use super::problem::Problem;
use super::readiness::Readiness;
use super::streams::Streams;
use super::v1::receiver::VettedOrigins;
use crate::egress;
use crate::engine::{Caller, Engine, EngineError};
use crate::files::Blobs;
use crate::telemetry::Metrics;

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base of absolute URLs, without a slash at the end.
    pub public_url: String,
    /// Of a request that is read as JSON.
    pub max_body_bytes: usize,
    /// Of a batch.
    pub max_batch_body_bytes: usize,
    /// Of an uploaded file.
    pub max_file_bytes: u64,
    /// Requests a second of an application that has no rate of its own.
    pub default_rate_per_second: u32,
    /// Requests at once of an application that has no rate of its own.
    pub default_rate_burst: u32,
}

impl Default for Settings {
    /// The documented limits, and no address.
    fn default() -> Settings {
        Settings {
            public_url: String::new(),
            max_body_bytes: 1024 * 1024,
            max_batch_body_bytes: 16 * 1024 * 1024,
            max_file_bytes: 5 * 1024 * 1024 * 1024,
            default_rate_per_second: 10_000,
            default_rate_burst: 10_000,
        }
    }
}

/// One a process, shared by all server threads.
pub struct State {
    /// The door to state.
    pub engine: Arc<Engine>,
    /// Judges addresses that callers name.
    pub egress: egress::Client,
    /// Bytes of files.
    pub blobs: Blobs,
    /// Where answers are counted.
    pub metrics: Arc<Metrics>,
    /// Limits and addresses.
    pub settings: Settings,
    /// Who calls.
    pub auth: Authenticator,
    /// How fast they may.
    pub limits: Limits,
    /// Which loops are alive.
    pub ready: Arc<Readiness>,
    /// Who follows the feed.
    pub streams: Arc<Streams>,
    pub(super) origins: VettedOrigins,
    pub(super) scrape: Scrape,
    pub(super) texts: Texts,
}

/// What is known of a request once its caller is: for the log line and the headers of the answer.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) application: uuid::Uuid,
    pub(super) standing: Standing,
}

impl State {
    /// With empty caches, and no loop known yet.
    pub fn new(
        engine: Arc<Engine>,
        egress: egress::Client,
        blobs: Blobs,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> State {
        let limits = Limits::new(settings.default_rate_per_second, settings.default_rate_burst);
        State {
            engine,
            egress,
            blobs,
            metrics,
            settings,
            auth: Authenticator::default(),
            limits,
            ready: Arc::default(),
            streams: Arc::default(),
            origins: VettedOrigins::default(),
            scrape: Scrape::default(),
            texts: Texts::default(),
        }
    }

    /// Who calls, if they may: a valid key, within its rate, with the scope.
    pub async fn admit(
        &self,
        request: &HttpRequest,
        scope: &'static str,
    ) -> Result<Arc<Caller>, Problem> {
        let caller = self.auth.caller(&self.engine, request.headers()).await?;
        let standing = self.limits.take(&caller);
        let refused = standing.refusal();
        let application = caller.application_id;
        request.extensions_mut().insert(Admitted { application, standing });
        if let Some(refused) = refused {
            return Err(refused);
        }
        allow(&caller, scope)?;
        Ok(caller)
    }

    /// The same for an answer that goes on: what was admitted is judged anew, and counts once.
    pub async fn admit_again(
        &self,
        headers: &HeaderMap,
        scope: &'static str,
    ) -> Result<Arc<Caller>, Problem> {
        let caller = self.auth.caller(&self.engine, headers).await?;
        allow(&caller, scope)?;
        Ok(caller)
    }
}

fn allow(caller: &Caller, scope: &'static str) -> Result<(), Problem> {
    if caller.may(scope) { Ok(()) } else { Err(EngineError::LacksScope(scope).into()) }
}
