//! The commands of the binary, one file each.
//!
//! Errors end up here: one line for people, with its causes, and an exit code.

#![warn(clippy::print_stdout, clippy::print_stderr, reason = "they panic; output.rs does not")]

mod api;
mod apps;
pub mod bench;
mod client;
mod demo;
mod fixtures;
mod listen;
mod output;
mod replay;
mod serve;
mod trigger;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Flags;

/// Long-running jobs over HTTP, with signed callbacks.
#[derive(Debug, Parser)]
#[command(name = "ringback", version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve {
        #[command(flatten)]
        flags: Flags,
    },
    /// Show the whole way of a job on real files, in a temporary folder
    Demo(demo::Options),
    /// Applications and their credentials; works beside a running server
    Apps {
        #[command(flatten)]
        flags: Flags,
        #[command(subcommand)]
        command: apps::Command,
    },
    /// Receive webhooks on this machine: verify, show, and fail if asked
    Listen(listen::Options),
    /// Send files as real signed webhooks, spoiled if asked
    Replay(replay::Options),
    /// Have a server send the example of an event to the application's endpoints
    Trigger(trigger::Options),
    /// The examples of webhooks that are built in
    #[command(subcommand)]
    Fixtures(fixtures::Command),
    /// Measure jobs a second, CPU a job and latency, with everything on this machine
    Bench(bench::Options),
}

/// Runs a command to its end.
pub fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Serve { flags } => serve::run(&flags),
        Command::Demo(options) => demo::run(&options),
        Command::Apps { flags, command } => apps::run(&flags, command),
        Command::Listen(options) => listen::run(options),
        Command::Replay(options) => replay::run(&options),
        Command::Trigger(options) => trigger::run(&options),
        Command::Fixtures(command) => fixtures::run(command),
        Command::Bench(options) => bench::run(options),
    };
    match result.and_then(|()| output::check()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            // Arguments that do not go together, as clap itself refuses others.
            Some(refused) => {
                let _ = refused.print();
                ExitCode::from(2)
            }
            None => {
                // The chain on one line: what failed, because of what.
                output::complain(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}

/// A runtime for a command.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
