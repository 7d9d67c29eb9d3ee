//! What can be asked of `ringback bench`, and what of it goes together.
//!
//! Must not know how anything is measured.

use clap::error::ErrorKind;

use crate::config::number;
use crate::engine::MOST_ENDPOINTS;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("compared").args(["history", "hanging"]).multiple(true))]
pub struct Options {
    /// sqlite://PATH or postgres://… [default: SQLite in a temporary folder]. One that was used before
    /// is taken only with the same RINGBACK_MASTER_KEY as then
    #[arg(long, value_name = "URL")]
    pub(super) database: Option<String>,
    /// Jobs that count; 2 % more go before them to warm up. With --deliveries: deliveries, rounded up
    /// to a whole number for each endpoint
    #[arg(long, default_value_t = 20_000, value_name = "N",
        value_parser = number::whole::<u32>(1..=10_000_000))]
    jobs: u32,
    /// Jobs submitted and not yet delivered everywhere, at most
    #[arg(long, default_value_t = 512, value_name = "N",
        value_parser = number::whole::<u32>(1..=100_000))]
    in_flight: u32,
    /// Finished jobs that fill the history before anything counts
    #[arg(long, value_name = "N", value_parser = number::whole::<u32>(1..=100_000_000))]
    pub(super) history: Option<u32>,
    /// Bytes more in each job, which go through its events and its webhook too; 16,000 at most
    #[arg(long, default_value_t = 0, value_name = "BYTES",
        value_parser = number::whole::<u32>(0..=MOST_PAYLOAD))]
    payload: u32,
    /// Runs in turn, this many of each: with the history and on an empty database, or on empty
    /// ones with the hanging endpoints and with all of them answering. Wants --history or --hanging,
    /// and on Postgres the right to create databases
    #[arg(long, value_name = "N", requires = "compared",
        value_parser = number::whole::<u32>(1..=100))]
    pub(super) pairs: Option<u32>,
    /// Measure deliveries instead: events that are already due, --jobs of them over --endpoints
    #[arg(long, conflicts_with_all = ["history", "payload", "in_flight", "hanging"])]
    pub(super) deliveries: bool,
    /// Endpoints that every job is told to besides its callback, 1,000 at most; with --deliveries
    /// those that the deliveries go to [default: 0, or 1]
    #[arg(long, value_name = "N", value_parser = number::whole::<u32>(1..=100_000))]
    endpoints: Option<u32>,
    /// Of the endpoints, how many take each request and never answer; jobs do not wait for them
    #[arg(long, value_name = "N", requires = "endpoints", value_parser = number::whole::<u32>(1..=MOST))]
    hanging: Option<u32>,
    /// Measure a server that nobody asks anything instead, from 5 s after it is ready, and three
    /// starts until ready. Linux tells CPU in hundredths of a second, so 20 s or more say most
    #[arg(long, value_name = "SECONDS", value_parser = number::whole::<u32>(1..=3_600),
        conflicts_with_all = ["jobs", "in_flight", "payload", "pairs", "deliveries", "endpoints", "hanging"])]
    pub(super) idle: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// What this process is; the command starts itself in the other roles
    #[arg(long, hide = true)]
    pub(super) role: Option<Role>,
}

/// Metadata may have 16 KiB in all.
const MOST_PAYLOAD: u32 = 16_000;
/// Endpoints of one application.
const MOST: u32 = MOST_ENDPOINTS as u32;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Role {
    /// Submits jobs and keeps the times.
    Load,
    /// Receives webhooks.
    Sink,
}

/// What is done in one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub jobs: u32,
    /// Jobs before those.
    pub warm_up: u32,
    pub in_flight: u32,
    pub payload: u32,
    pub endpoints: u32,
    /// Those of the endpoints that never answer.
    pub hanging: u32,
}

impl Plan {
    /// Endpoints that answer.
    pub(super) fn answering(&self) -> u32 {
        self.endpoints.saturating_sub(self.hanging)
    }
}

impl Options {
    /// One run as asked for; an error when options do not go together that are each allowed.
    pub(super) fn plan(&self) -> Result<Plan, clap::Error> {
        let endpoints = self.endpoints.unwrap_or(0);
        let hanging = self.hanging.unwrap_or(0);
        if !self.deliveries && endpoints > MOST {
            let refused = format!(
                "--endpoints {endpoints} is not allowed for one application: {MOST} at most\n"
            );
            return Err(clap::Error::raw(ErrorKind::ValueValidation, refused));
        }
        if hanging > endpoints {
            let refused = format!(
                "--hanging {hanging} is not allowed with --endpoints {endpoints}: {endpoints} at \
                 most\n"
            );
            return Err(clap::Error::raw(ErrorKind::ValueValidation, refused));
        }
        if let (Some(_), Some(history), Some(hanging)) = (self.pairs, self.history, self.hanging) {
            let refused = format!(
                "--pairs is not allowed with --history {history} and --hanging {hanging}: it \
                 compares with one of them and without\n"
            );
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, refused));
        }
        let Options { jobs, in_flight, payload, .. } = *self;
        Ok(Plan { jobs, warm_up: jobs.div_ceil(50), in_flight, payload, endpoints, hanging })
    }

    /// Events that are due, over so many endpoints: each is owed as much as the others.
    pub(super) fn due(&self) -> anyhow::Result<(usize, usize)> {
        let endpoints = usize::try_from(self.endpoints.unwrap_or(1))?;
        Ok((usize::try_from(self.jobs)?.next_multiple_of(endpoints), endpoints))
    }
}
