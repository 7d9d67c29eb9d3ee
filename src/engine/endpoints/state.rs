//! Endpoints that are disabled and enabled: by request, by their receiver, for want of success.

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{EndpointView, own, subjects, view};
use crate::engine::Engine;
use crate::engine::callers::Caller;
use crate::engine::core::Core;
use crate::engine::error::EngineResult;
use crate::engine::ledger::{Ledger, Occurrence};
use crate::engine::stored::read_id;
use crate::ids::{SubjectKind, Timestamp, new_id, new_stamp};
use crate::lifecycle::EventType;
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreResult, Transaction, applications, lanes, receivers};

/// Why an endpoint is disabled that somebody disabled.
pub(super) const BY_REQUEST: &str = "by_request";

/// What becomes of what was held while an endpoint was disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backlog {
    /// It is sent.
    #[default]
    Resume,
    /// It is cancelled.
    Discard,
}

/// Disables an endpoint that is held and enabled, with its event. Lanes on which others are told of
/// it are pushed to `lanes`.
pub(in crate::engine) fn disable(
    core: &Core,
    transaction: &mut Transaction<'_>,
    ledger: &mut Ledger,
    row: &mut ReceiverRow,
    reason: &str,
    now: Timestamp,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    row.disabled_at = Some(now.0);
    row.disabled_reason = Some(reason.to_owned());
    row.settling = 1;
    let data = json!({ "reason": reason, "failingSince": row.failing_since.map(Timestamp) });
    tell(core, transaction, ledger, row, EventType::EndpointDisabled, &data, now, lanes)
}

/// The same in a transaction of its own.
pub(super) fn switch_off(
    core: &Core,
    transaction: &mut Transaction<'_>,
    row: &mut ReceiverRow,
    reason: &str,
    now: Timestamp,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    let mut ledger = Ledger::default();
    disable(core, transaction, &mut ledger, row, reason, now, lanes)?;
    ledger.write(transaction)
}

/// Enables an endpoint that is held and disabled, with its event. Its lane may be tried at once.
pub(super) fn switch_on(
    core: &Core,
    transaction: &mut Transaction<'_>,
    row: &mut ReceiverRow,
    backlog: Backlog,
    now: Timestamp,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    row.disabled_at = None;
    row.disabled_reason = None;
    row.failing_since = None;
    row.settling = 1;
    if backlog == Backlog::Discard {
        row.discard_before = now.0;
    }
    lanes::probe(transaction, row.lane, now.0)?;
    let mut ledger = Ledger::default();
    let data = json!({ "backlog": backlog });
    tell(core, transaction, &mut ledger, row, EventType::EndpointEnabled, &data, now, lanes)?;
    ledger.write(transaction)
}

/// Writes the row with its next event. The stamp comes first, so that the event meets the endpoint
/// as it is from now on.
#[expect(clippy::too_many_arguments, reason = "the one place where all of it meets")]
fn tell(
    core: &Core,
    transaction: &mut Transaction<'_>,
    ledger: &mut Ledger,
    row: &mut ReceiverRow,
    event_type: EventType,
    data: &serde_json::Value,
    now: Timestamp,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    row.last_sequence += 1;
    row.updated_at = Some(now.0);
    row.version = new_stamp();
    receivers::update_endpoint(transaction, row)?;
    applications::stamp(transaction, row.application_id, new_stamp())?;
    ledger.forget_endpoints(row.application_id);
    let occurrence = Occurrence {
        subject: row.id,
        kind: SubjectKind::Endpoint,
        subject_id: read_id(&row.public_id)?,
        application: row.application_id,
        sequence: row.last_sequence,
        event_id: new_id(),
        event_type,
        job_type: None,
        at: now,
        data: data.to_string(),
        receiver: None,
        request_id: "",
    };
    let shown = view::json(row)?;
    ledger.announce(transaction, core, occurrence, || shown, lanes)
}

impl Engine {
    /// Disables the caller's endpoint. What it is owed is held. Doing so again changes nothing.
    pub async fn disable_endpoint(&self, caller: &Caller, id: Uuid) -> EngineResult<EndpointView> {
        let application = caller.application;
        let known = self.endpoint_row(caller, id).await?;
        let (row, lanes) = self
            .custom(subjects(application, known.id), move |transaction, core, now| {
                let mut row = own(transaction, application, id)?;
                let mut lanes = Vec::new();
                if row.disabled_at.is_none() {
                    switch_off(core, transaction, &mut row, BY_REQUEST, now, &mut lanes)?;
                }
                Ok((row, lanes))
            })
            .await?;
        self.ring_again(&lanes);
        self.settle_backlog(row.id).await?;
        self.endpoint_view(row).await
    }

    /// Enables the caller's endpoint; what was held is sent or cancelled. On an enabled one only
    /// its lane is opened for a try.
    pub async fn enable_endpoint(
        &self,
        caller: &Caller,
        id: Uuid,
        backlog: Backlog,
    ) -> EngineResult<EndpointView> {
        let application = caller.application;
        let known = self.endpoint_row(caller, id).await?;
        let (row, lanes) = self
            .custom(subjects(application, known.id), move |transaction, core, now| {
                let mut row = own(transaction, application, id)?;
                let mut lanes = Vec::new();
                if row.disabled_at.is_some() {
                    switch_on(core, transaction, &mut row, backlog, now, &mut lanes)?;
                } else {
                    lanes::probe(transaction, row.lane, now.0)?;
                }
                Ok((row, lanes))
            })
            .await?;
        self.ring_again(&lanes);
        self.settle_backlog(row.id).await?;
        self.endpoint_view(row).await
    }
}
