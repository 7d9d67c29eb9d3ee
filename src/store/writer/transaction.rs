//! A write transaction as operations see it: a connection that can also draw row keys, and what is
//! said of the whole of it.

use super::Run;
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::nodes;

/// Keys reserved at once.
const KEY_BLOCK: i64 = 4_096;

/// A connection inside a write transaction, which can also draw row keys.
pub struct Transaction<'a> {
    connection: &'a mut Connection,
    keys: &'a mut KeyBlock,
    run: Run,
    /// Whether something is run along that no operation asked for.
    carries: bool,
    /// Whether events were appended.
    has_events: bool,
}

/// Row keys that belong to one writer. A block that was reserved in a transaction is only as
/// lasting as that transaction.
#[derive(Default)]
pub(super) struct KeyBlock {
    next: Key,
    end: Key,
    provisional: bool,
}

impl KeyBlock {
    /// The transaction lasts, and so does what was reserved in it.
    pub(super) fn committed(&mut self) {
        self.provisional = false;
    }

    /// The transaction was undone: what was reserved in it is given up.
    pub(super) fn undone(&mut self) {
        if self.provisional {
            *self = KeyBlock::default();
        }
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        connection: &'a mut Connection,
        keys: &'a mut KeyBlock,
        run: Run,
    ) -> Transaction<'a> {
        Transaction { connection, keys, run, carries: false, has_events: false }
    }

    pub(super) fn carries(&self) -> bool {
        self.carries
    }

    /// A fresh row key, larger than all this writer drew before.
    pub fn key(&mut self) -> StoreResult<Key> {
        if self.keys.next == self.keys.end {
            let first = nodes::reserve_keys(self.connection, KEY_BLOCK)?;
            *self.keys = KeyBlock { next: first, end: first + KEY_BLOCK, provisional: true };
        }
        self.keys.next += 1;
        Ok(self.keys.next - 1)
    }

    /// Events were appended: those who follow them want to be told after the commit.
    pub fn note_events(&mut self) {
        self.has_events = true;
    }

    /// Whether events were appended.
    pub fn has_events(&self) -> bool {
        self.has_events
    }

    /// Something is run along from here on that no operation asked for: should that fail, the
    /// operations are run again without it.
    pub fn carry(&mut self) {
        self.carries = true;
    }

    /// Whether something may be run along.
    pub fn may_carry(&self) -> bool {
        self.run == Run::First
    }

    /// Whether its operations may have been run before: what they find done may be their own doing.
    pub fn is_repeated(&self) -> bool {
        self.run == Run::Repeated
    }
}

impl std::ops::Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl std::ops::DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
    }
}
