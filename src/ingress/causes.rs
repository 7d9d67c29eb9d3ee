//! Errors of other modules as problems.
//!
//! What is our fault keeps its whole chain of causes as the detail, which the log gets to see and
//! the caller does not.

use std::error::Error;

use super::problem::{Code, Problem};
use crate::egress::Refusal as Barred;
use crate::engine::{Engine, EngineError};
use crate::files::BlobError;
use crate::lifecycle::Refusal;

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Problem {
        if error.is_passing() || Engine::is_closing(&error) {
            return Problem::new(Code::Unavailable, chain(&error)).with_retry_after(1);
        }
        let code = match &error {
            EngineError::NotFound { .. } => Code::NotFound,
            EngineError::Refused(Refusal::AlreadyFinal { .. }) => Code::JobFinal,
            EngineError::Refused(Refusal::NotNow { .. }) => Code::JobNotFinal,
            // It went into the trash a moment ago, so it is not there any more.
            EngineError::Refused(Refusal::NoChange) => Code::NotFound,
            EngineError::NotRetryable(_) => Code::JobNotRetryable,
            EngineError::LacksScope(_) => Code::ForbiddenScope,
            EngineError::GroupSealed(_) => Code::GroupSealed,
            EngineError::IdempotencyMismatch => Code::IdempotencyMismatch,
            EngineError::IdempotencyInFlight => Code::IdempotencyInFlight,
            EngineError::IdempotencyGone => Code::IdempotencyGone,
            EngineError::Invalid(_) => Code::InvalidRequest,
            EngineError::DeliveryLive(_) => Code::DeliveryLive,
            EngineError::TooManyEndpoints(_) => Code::EndpointLimit,
            EngineError::TooManySecrets(_) => Code::SecretLimit,
            EngineError::LastSecret(_) => Code::LastSecret,
            EngineError::NoPublicKey(_) => Code::NoPublicKey,
            EngineError::ReceiverDeleted(_) => Code::EndpointDeleted,
            EngineError::NotBlocking(_) => Code::NotBlocking,
            EngineError::BeyondFeed { .. } => Code::InvalidRequest,
            EngineError::Store(_)
            | EngineError::Refused(Refusal::LeaseLost { .. } | Refusal::NotDue) => Code::Internal,
        };
        let problem = Problem::new(code, chain(&error));
        match error {
            EngineError::LacksScope(scope) => problem.with_extension("scope", scope),
            _ => problem,
        }
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Problem {
        let code = match &error {
            BlobError::TooLarge { .. } => Code::PayloadTooLarge,
            BlobError::Source(_) => Code::InvalidRequest,
            BlobError::File { .. } | BlobError::Folder { .. } | BlobError::Storage(_) => {
                Code::Unavailable
            }
            BlobError::NotFound { .. }
            | BlobError::Exists { .. }
            | BlobError::Range { .. }
            | BlobError::Stopped => Code::Internal,
        };
        match code {
            Code::InvalidRequest => Problem::new(code, "the body ended before it was complete"),
            _ => Problem::new(code, chain(&error)),
        }
    }
}

/// An address or header that egress does not allow; the reason is a stable word.
pub(super) fn barred(code: Code, refusal: &Barred) -> Problem {
    Problem::new(code, refusal.to_string()).with_extension("reason", refusal.code())
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // A transparent error says the same as its source.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Status;

    #[test]
    fn refusals_become_conflicts() {
        let id = uuid::Uuid::nil();
        for (error, code) in [
            (EngineError::from(Refusal::AlreadyFinal { status: Status::Success }), Code::JobFinal),
            (
                EngineError::from(Refusal::NotNow { status: Status::Working, command: "trash" }),
                Code::JobNotFinal,
            ),
            (EngineError::NotRetryable(Status::Success), Code::JobNotRetryable),
            (EngineError::not_found("job", id), Code::NotFound),
            (EngineError::GroupSealed(id), Code::GroupSealed),
            (EngineError::Refused(Refusal::LeaseLost { token: 1 }), Code::Internal),
        ] {
            assert_eq!(Problem::from(error).code, code);
        }
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        let disk = object_store::Error::Generic { store: "s", source: "full".into() };
        let problem = Problem::from(BlobError::Storage(disk));
        assert_eq!(problem.code, Code::Unavailable);
        assert!(problem.detail.starts_with("the storage for files failed: "), "{problem}");
        assert_eq!(problem.detail.matches("full").count(), 1);
    }
}
