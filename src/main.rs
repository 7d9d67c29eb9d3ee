//! The binary: parses arguments and hands over to `cli`.

use std::process::ExitCode;

use clap::Parser;
use ringback::cli::Arguments;

fn main() -> ExitCode {
    ringback::cli::run(Arguments::parse())
}
