//! How a run is watched and stopped from outside, and how its first failure is remembered.
//!
//! Between our readers lie decoders, `io::copy` and the caller's sink, and all of them know only
//! `io::Error`. So the real reason is kept here, beside the call stack, and looked up afterwards.
//! Must not know which archive format runs.

use std::cell::{Cell, RefCell};
use std::io;

use super::error::ArchiveError;

/// Nothing is read, written or unpacked further than this without asking for a stop.
pub(super) const STEP: usize = 64 * 1024;

/// The caller's end of a run.
pub trait Control {
    /// Bytes of input worked off, of those there are.
    fn progress(&mut self, done_bytes: u64, total_bytes: u64);
    fn stop_requested(&self) -> bool;
}

/// One run: asks for stops, counts bytes, keeps the first failure.
pub(super) struct Meter<'c> {
    control: RefCell<&'c mut dyn Control>,
    total: Cell<u64>,
    done: Cell<u64>,
    reported: Cell<u64>,
    failure: RefCell<Option<ArchiveError>>,
    failed: Cell<bool>,
}

impl<'c> Meter<'c> {
    pub(super) fn new(control: &'c mut dyn Control) -> Self {
        Self {
            control: RefCell::new(control),
            total: Cell::new(0),
            done: Cell::new(0),
            reported: Cell::new(0),
            failure: RefCell::new(None),
            failed: Cell::new(false),
        }
    }

    /// Fails once a stop was asked for, and for ever after any failure.
    pub(super) fn poll(&self) -> io::Result<()> {
        if self.failed.get() {
            return Err(given_up());
        }
        if self.control.borrow().stop_requested() {
            return Err(self.fail(ArchiveError::Stopped));
        }
        Ok(())
    }

    /// Counts from zero again, towards `total`.
    pub(super) fn begin(&self, total: u64) {
        self.total.set(total);
        self.done.set(0);
        self.reported.set(0);
        self.control.borrow_mut().progress(0, total);
    }

    pub(super) fn advance(&self, bytes: u64) {
        let done = self.done.get().saturating_add(bytes);
        self.done.set(done);
        if done - self.reported.get() >= STEP as u64 {
            self.reported.set(done);
            let total = self.total.get();
            self.control.borrow_mut().progress(done.min(total), total);
        }
    }

    pub(super) fn complete(&self) {
        let total = self.total.get();
        self.control.borrow_mut().progress(total, total);
    }

    pub(super) fn done(&self) -> u64 {
        self.done.get()
    }

    /// Remembers why, and gives the error that carries "no further" through foreign code. It is
    /// never `Interrupted`, which such code would try again.
    pub(super) fn fail(&self, error: ArchiveError) -> io::Error {
        if !self.failed.replace(true) {
            *self.failure.borrow_mut() = Some(error);
        }
        given_up()
    }

    /// The remembered failure, if there is one.
    pub(super) fn failure(&self) -> Option<ArchiveError> {
        self.failure.borrow_mut().take()
    }

    /// What went wrong: the remembered failure, or else what the foreign code says.
    pub(super) fn explain(&self, otherwise: impl FnOnce() -> ArchiveError) -> ArchiveError {
        self.failure().unwrap_or_else(otherwise)
    }
}

fn given_up() -> io::Error {
    io::Error::other("the archive run has ended")
}

/// For looking at an archive when nobody waits for it.
pub(super) struct Unwatched;

impl Control for Unwatched {
    fn progress(&mut self, _: u64, _: u64) {}

    fn stop_requested(&self) -> bool {
        false
    }
}
