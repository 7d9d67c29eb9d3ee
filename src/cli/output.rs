//! The one way in which commands print.
//!
//! Whoever reads no further, as `head` does, has seen enough: a command goes on with its work and
//! ends as it would have. What is lost for another reason, such as a full disk, is a failure. Must
//! not know what is printed.

use std::fmt::Arguments;
use std::io::{Error, ErrorKind, Write as _};
use std::sync::OnceLock;

use anyhow::anyhow;

/// Why something was lost, if it was.
static LOST: OnceLock<Error> = OnceLock::new();

/// Prints a line, written as for `println!`.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::output::print(format_args!($($text)*))
    };
}
pub(in crate::cli) use say;

/// What [`say!`] calls.
pub(in crate::cli) fn print(text: Arguments<'_>) {
    if let Err(error) = line(text)
        && error.kind() != ErrorKind::BrokenPipe
    {
        // The first reason is the one that is told.
        let _there_was_one_before = LOST.set(error);
    }
}

/// Writes a line, or several, in one piece and at once, for those who must know whether anybody
/// reads.
pub(in crate::cli) fn line(text: Arguments<'_>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Says on standard error what is amiss; whether anybody reads it does not matter.
pub(in crate::cli) fn complain(what: &str) {
    let _nobody_may_read = writeln!(std::io::stderr(), "ringback: {what}");
}

/// Fails when something that was to be printed could not be.
pub(in crate::cli) fn check() -> anyhow::Result<()> {
    match LOST.get() {
        Some(error) => Err(anyhow!("cannot write to standard output: {error}")),
        None => Ok(()),
    }
}

/// With control characters written out.
pub(in crate::cli) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}
