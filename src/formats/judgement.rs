//! What an answer means, for the delivery it answers and for those to come.
//!
//! Must not know: which answers mean what; a format decides that.

use chrono::{DateTime, Utc};

/// Reason of a final verdict: the receiver is gone for good.
pub const RECEIVER_GONE: &str = "receiver_gone";
/// Reason of a final verdict: the receiver wants no more tries of this one.
pub const ABORTED_BY_RECEIVER: &str = "aborted_by_receiver";
/// Why nothing more is wanted: the receiver is gone for good.
pub const GONE: &str = "gone";
/// Why nothing more is wanted: the receiver said so in so many words.
pub const DISABLED_BY_RECEIVER: &str = "disabled_by_receiver";

/// What an answer means for the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Delivered,
    /// Try again: at the time the receiver asked for, exactly, or else on the schedule.
    Retry { at: Option<DateTime<Utc>> },
    /// Try again, but only over the short end of the schedule: the receiver does answer, and time
    /// alone seldom changes what it says.
    RetryBriefly,
    /// Trying again is of no use; the reason is a stable code.
    Final { reason: &'static str },
}

/// What an answer means altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// For the delivery that was answered.
    pub verdict: Verdict,
    /// Why the receiver wants nothing after this one, as a stable code. Independent of the
    /// verdict: a receiver may take a delivery and ask for no more in one answer.
    pub wants_no_more: Option<&'static str>,
}

impl From<Verdict> for Judgement {
    /// The receiver goes on wanting the deliveries to come.
    fn from(verdict: Verdict) -> Judgement {
        Judgement { verdict, wants_no_more: None }
    }
}
