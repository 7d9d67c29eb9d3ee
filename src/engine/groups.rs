//! Groups as somebody asks for them: opened, sealed, stopped.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::Engine;
use super::apply::complete;
use super::callers::Caller;
use super::error::{EngineError, EngineResult};
use super::ledger::Ledger;
use super::operation::subject;
use super::receivers::NewCallback;
use super::view;
use crate::ids::{Key, new_id};
use crate::lifecycle::{Command, Status};
use crate::store::groups::GroupRow;
use crate::store::{groups, jobs};

/// Jobs of a group that are read at once.
const PAGE: i64 = 500;

impl Engine {
    /// Opens a group.
    pub async fn create_group(
        &self,
        caller: &Caller,
        callback: Option<NewCallback>,
        request_id: String,
    ) -> EngineResult<Box<RawValue>> {
        let receiver = match callback {
            Some(callback) => Some(self.receiver_for(caller, &callback).await?),
            None => None,
        };
        let id = new_id();
        let (application, now) = (caller.application, self.now());
        let key = receiver.as_ref().map(|receiver| receiver.key);
        let row = self
            .custom(vec![subject("group", id)], move |transaction, _, _| {
                let row = GroupRow {
                    id: transaction.key()?,
                    public_id: id.as_bytes().to_vec(),
                    application_id: application,
                    receiver_id: key,
                    sealed: 0,
                    completed_at: None,
                    total: 0,
                    success: 0,
                    error: 0,
                    stopped: 0,
                    last_sequence: 0,
                    request_id: request_id.clone(),
                    created_at: now.0,
                    updated_at: now.0,
                };
                groups::insert(transaction, std::slice::from_ref(&row))?;
                Ok(row)
            })
            .await?;
        Ok(view::group(&row, receiver.as_ref().map(|receiver| &*receiver.shown))?)
    }

    /// Seals a group; `group.completed` follows at once when nothing is left to do. Closing a
    /// sealed group changes nothing.
    pub async fn close_group(&self, caller: &Caller, id: Uuid) -> EngineResult<Box<RawValue>> {
        let application = caller.application;
        let (shown, lanes) = self
            .custom(vec![subject("group", id)], move |transaction, core, now| {
                let row = groups::hold(transaction, id)?;
                let mut row = row
                    .filter(|row| row.application_id == application)
                    .ok_or_else(|| EngineError::not_found("group", id))?;
                let mut lanes = Vec::new();
                if row.sealed == 0 {
                    row.sealed = 1;
                    row.updated_at = now.0;
                    let mut ledger = Ledger::default();
                    complete(core, transaction, &mut row, now, &mut ledger, &mut lanes)?;
                    groups::update(transaction, std::slice::from_ref(&row))?;
                    ledger.write(transaction)?;
                }
                let receivers = core.receivers(transaction, row.receiver_id)?;
                let receiver = row.receiver_id.and_then(|key| receivers.get(&key));
                let shown = view::group(&row, receiver.map(|receiver| &*receiver.shown))?;
                Ok((shown, lanes))
            })
            .await?;
        self.bells.ring_lanes(&lanes);
        Ok(shown)
    }

    /// Asks every job of a group to stop that is not final. The group as it is then.
    pub async fn stop_group(&self, caller: &Caller, id: Uuid) -> EngineResult<Box<RawValue>> {
        // Finding it first tells whose it is.
        self.find_group(caller, id).await?;
        let mut after: (i64, Key) = (0, 0);
        loop {
            let page = self
                .store
                .read(move |connection| match groups::find(connection, id)? {
                    Some(group) => jobs::of_group(connection, group.id, after, PAGE),
                    None if after == (0, 0) => {
                        Ok(jobs::find(connection, id)?.into_iter().collect())
                    }
                    None => Ok(Vec::new()),
                })
                .await?;
            let Some(last) = page.last() else { break };
            after = (last.created_at, last.state.id);
            let live = page.iter().filter(|job| !Status::from_number(job.state.status).is_final());
            let stops =
                live.map(|job| self.apply_of(caller.application, job.state.id, Command::Stop));
            // All of a page at once, so that they share commits.
            for result in futures_util::future::join_all(stops).await {
                match result {
                    // Whoever became final meanwhile has nothing to stop.
                    Ok(_) | Err(EngineError::Refused(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(self.find_group(caller, id).await?.0)
    }
}
