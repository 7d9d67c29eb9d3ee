//! The binary: parses arguments and hands over to `cli`.

use std::process::ExitCode;

use clap::Parser;
use ringback::cli::Arguments;

/// A server allocates on every thread what another one frees; the C library's allocator takes locks
/// for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringback::cli::run(Arguments::parse())
}
