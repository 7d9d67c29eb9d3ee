//! What a transaction holds of jobs and groups before it changes any of them: live jobs, final ones,
//! groups, of each by key. That is the order in which everybody holds them on Postgres; on SQLite
//! nobody writes beside. Must not know what will become of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::operation::{Apply, Submit};
use super::stored::StoredJob;
use crate::ids::Key;
use crate::lifecycle::Command;
use crate::store::{Backend, StoreResult, Transaction, groups, jobs};

/// Holds what these submissions and commands will change; the jobs of the commands.
pub(super) fn hold(
    transaction: &mut Transaction<'_>,
    submits: &[(usize, &Submit)],
    applies: &[(usize, &Apply)],
) -> StoreResult<HashMap<Key, StoredJob>> {
    if transaction.backend() == Backend::Sqlite {
        return load(transaction, applies);
    }
    let joined: BTreeSet<Uuid> = submits.iter().filter_map(|(_, submit)| submit.joins()).collect();
    let joined: Vec<Uuid> = joined.into_iter().collect();
    // Those become the first ones of their groups.
    let alone = jobs::alone(transaction, &joined)?;
    if !alone.is_empty() || is_mixed(applies) {
        let mut all: Vec<Key> = applies.iter().map(|(_, apply)| apply.job).collect();
        all.extend(&alone);
        jobs::hold_live(transaction, &all)?;
        jobs::hold_final(transaction, &alone)?;
    }
    let held = load(transaction, applies)?;
    hold_groups(transaction, &joined, applies, &held)?;
    Ok(held)
}

/// Whether some of the jobs are known from their claims and some are not: they are loaded apart.
fn is_mixed(applies: &[(usize, &Apply)]) -> bool {
    let known = applies.iter().filter(|(_, apply)| apply.claimed.is_some()).count();
    known > 0 && known < applies.len()
}

/// The jobs of these commands, live or final, held for this transaction.
fn load(
    transaction: &mut Transaction<'_>,
    applies: &[(usize, &Apply)],
) -> StoreResult<HashMap<Key, StoredJob>> {
    let mut held = HashMap::with_capacity(applies.len());
    let claimed: HashMap<Key, &Arc<StoredJob>> = applies
        .iter()
        .filter_map(|(_, apply)| apply.claimed.as_ref().map(|claimed| (apply.job, claimed)))
        .collect();
    let known: Vec<Key> = claimed.keys().copied().collect();
    for row in jobs::load_states(transaction, &known)? {
        if let Some(claimed) = claimed.get(&row.id) {
            held.insert(row.id, StoredJob::clone(claimed).at(row));
        }
    }
    let unknown: Vec<Key> = applies
        .iter()
        .map(|(_, apply)| apply.job)
        .filter(|key| !claimed.contains_key(key))
        .collect();
    for row in jobs::load_live(transaction, &unknown)? {
        held.insert(row.state.id, StoredJob::read(row)?);
    }
    let all = applies.iter().map(|(_, apply)| apply.job);
    let rest: Vec<Key> = all.filter(|key| !held.contains_key(key)).collect();
    for row in jobs::load_final(transaction, &rest)? {
        held.insert(row.state.id, StoredJob::read(row)?);
    }
    Ok(held)
}

/// The groups that jobs join or end in. One by itself is held by whoever needs it.
fn hold_groups(
    transaction: &mut Transaction<'_>,
    joined: &[Uuid],
    applies: &[(usize, &Apply)],
    held: &HashMap<Key, StoredJob>,
) -> StoreResult<()> {
    let may_end = |apply: &&(usize, &Apply)| !matches!(apply.1.command, Command::Progress { .. });
    let ending =
        applies.iter().filter(may_end).filter_map(|(_, apply)| held.get(&apply.job)?.group);
    let mut keys: BTreeSet<Key> = ending.collect();
    if keys.len() + joined.len() < 2 {
        return Ok(());
    }
    keys.extend(groups::known(transaction, joined)?);
    let keys: Vec<Key> = keys.into_iter().collect();
    groups::load(transaction, &keys)?;
    Ok(())
}
