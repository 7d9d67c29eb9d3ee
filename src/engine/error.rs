//! What the engine answers when it does not do what was asked.

use crate::lifecycle::{Refusal, Status};
use crate::store::StoreError;

/// A request that was not taken. Refusals are values: nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such thing, or it is another application's.
    #[error("{kind} {id} is not known")]
    NotFound {
        /// job, group, file …
        kind: &'static str,
        /// As it was asked for.
        id: String,
    },
    /// The rules of a job's life say no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The job is not final, or a success, so it cannot be tried again.
    #[error("only a job that ended as error or stopped can be retried; this one is {status}", status = .0.as_str())]
    NotRetryable(Status),
    /// The key may do less than that.
    #[error("this API key lacks the scope `{0}`")]
    LacksScope(&'static str),
    /// The group takes no more jobs.
    #[error("group {0} is sealed: no job may join it any more")]
    GroupSealed(uuid::Uuid),
    /// The key was used for another request.
    #[error("this Idempotency-Key was used with another method, path or body")]
    IdempotencyMismatch,
    /// The key's first request is still on its way.
    #[error("the first request with this Idempotency-Key has not ended yet; ask again")]
    IdempotencyInFlight,
    /// What an earlier request with this key made has been purged since.
    #[error("what this Idempotency-Key made has been removed since")]
    IdempotencyGone,
    /// A value that cannot be taken.
    #[error("{0}")]
    Invalid(String),
    /// A delivery that is still owed cannot be sent again.
    #[error("delivery {0} is still being tried")]
    DeliveryLive(uuid::Uuid),
    /// An application has as many endpoints as it may.
    #[error("an application may have {0} endpoints at most")]
    TooManyEndpoints(i64),
    /// An endpoint has as many active keys as it may.
    #[error(
        "an endpoint may have {0} active secrets at most; revoke one first, or rotate with \
         overlapSeconds 0"
    )]
    TooManySecrets(usize),
    /// Nothing would sign any more.
    #[error("secret {0} is the only one that signs without an end; add or rotate first")]
    LastSecret(uuid::Uuid),
    /// The endpoint's deliveries are not signed with a key pair.
    #[error("endpoint {0} has no ed25519 key; its signature is made with a shared secret")]
    NoPublicKey(uuid::Uuid),
    /// There is nobody to send it to any more.
    #[error("the endpoint of delivery {0} was deleted")]
    ReceiverDeleted(uuid::Uuid),
    /// Nothing waits for that delivery.
    #[error("delivery {0} holds up nothing; only one that does can be skipped")]
    NotBlocking(uuid::Uuid),
    /// The position is not in the feed.
    #[error("after={given} is not a position of this feed; allowed: 0 to {head}, or latest")]
    BeyondFeed {
        /// As given.
        given: i64,
        /// The newest.
        head: i64,
    },
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

/// Result of anything in the engine.
pub type EngineResult<T> = Result<T, EngineError>;

impl EngineError {
    /// A thing that is not there, or not for this application.
    pub fn not_found(kind: &'static str, id: impl ToString) -> EngineError {
        EngineError::NotFound { kind, id: id.to_string() }
    }

    /// Whether the same call may succeed a little later.
    pub fn is_passing(&self) -> bool {
        matches!(self, EngineError::Store(error) if error.is_passing())
    }
}
