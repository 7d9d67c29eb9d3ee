//! Settings: flags, then `RINGBACK_*` variables, then `ringback.toml`, then defaults.
//!
//! The only reader of the environment. One struct, read once, passed on by value; must not know
//! who uses it.

mod check;
mod master_key;
pub mod number;

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything a server can be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Base of absolute URLs in answers and webhooks; by default made of `listen`.
    pub public_url: Option<String>,
    /// `sqlite://PATH` or `postgres://…`; by default a file in the data folder.
    pub database: Option<String>,
    /// Folder for the database file, the master key, stored files and work files.
    pub data_dir: PathBuf,
    /// Networks that callbacks and imports may reach although they are private.
    #[serde(deserialize_with = "list")]
    pub egress_allow: Vec<IpNet>,
    /// Take addresses of `64:ff9b::/96` for the public IPv4 addresses in them: behind NAT64 and
    /// DNS64.
    pub egress_nat64: bool,
    /// Refuse callbacks and imports over plain HTTP.
    pub https_only: bool,
    /// 64 hex digits; by default read from, or created in, `master.key` in the data folder.
    pub master_key: Option<String>,
    /// Jobs at once on this node.
    pub job_slots: usize,
    /// Jobs at once of named queues on this node; other queues may use all slots.
    pub queue_slots: HashMap<String, usize>,
    /// Limit of one try of a job that names none, seconds.
    pub job_timeout_seconds: u64,
    /// Largest file that is uploaded, imported or made, bytes.
    pub max_file_bytes: u64,
    /// Longest import, seconds.
    pub import_deadline_seconds: u64,
    /// Days that finished jobs are kept.
    pub retention_days: u32,
    /// Seconds that running work may take to end at shutdown.
    pub grace_seconds: u64,
    /// Requests a second of an application that has no rate of its own.
    pub rate_per_second: u32,
    /// Requests at once of an application that has no rate of its own.
    pub rate_burst: u32,
    /// Webhooks in flight at once to one origin of an application.
    pub lane_in_flight: usize,
    /// Webhooks a second to one origin of an application; no limit by default.
    pub lane_rate_per_second: Option<f64>,
    /// Webhooks at once to one origin of an application, when a rate is set; by default what comes
    /// in 50 ms.
    pub lane_rate_burst: Option<u32>,
    /// Limit of one delivery attempt, seconds, everything included.
    pub delivery_deadline_seconds: u64,
    /// Failures in a row after which a lane is closed for a while; 0 never closes one.
    pub breaker_failures: u32,
    /// Seconds that a lane is closed at first; twice as long each further time, up to ten minutes.
    pub breaker_seconds: u64,
    /// Seconds without a success after which a failing endpoint is disabled; 0 never disables one.
    pub disable_after_seconds: u64,
    /// What answers of 4xx mean that speak of the message: `retry` or `final`.
    pub client_errors: ClientErrorChoice,
    /// Waits between delivery attempts, seconds; by default 5 s up to 24 h, ten tries in all.
    #[serde(deserialize_with = "some_list")]
    pub retry_schedule_seconds: Option<Vec<u64>>,
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// A filter such as `info` or `ringback=debug,warn`.
    pub log_filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What answers of 4xx mean that speak of the message and not of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClientErrorChoice {
    /// Tried again on the short end of the schedule.
    Retry,
    /// Final.
    Final,
}

/// A list, or what variables can hold: one value, or values with commas between them.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    List(Vec<T>),
    One(T),
    Text(String),
}

fn list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de> + std::str::FromStr,
    T::Err: std::fmt::Display,
    D: serde::Deserializer<'de>,
{
    match OneOrMore::<T>::deserialize(deserializer)? {
        OneOrMore::List(list) => Ok(list),
        OneOrMore::One(one) => Ok(vec![one]),
        OneOrMore::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let wrong = |error| serde::de::Error::custom(format!("`{part}`: {error}"));
                part.parse().map_err(wrong)
            })
            .collect(),
    }
}

fn some_list<'de, D>(deserializer: D) -> Result<Option<Vec<u64>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    match Option::<OneOrMore<u64>>::deserialize(deserializer)? {
        None => Ok(None),
        Some(OneOrMore::List(list)) => Ok(Some(list)),
        Some(OneOrMore::One(one)) => Ok(Some(vec![one])),
        Some(OneOrMore::Text(text)) => {
            let parsed: Result<Vec<u64>, _> =
                text.split(',').map(|part| part.trim().parse()).collect();
            parsed
                .map(Some)
                .map_err(|_| serde::de::Error::custom(format!("`{text}` is not a list of seconds")))
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            database: None,
            data_dir: PathBuf::from("ringback-data"),
            egress_allow: Vec::new(),
            egress_nat64: false,
            https_only: false,
            master_key: None,
            job_slots: 64,
            queue_slots: HashMap::new(),
            job_timeout_seconds: 6 * 60 * 60,
            max_file_bytes: 16 * 1024 * 1024 * 1024,
            import_deadline_seconds: 60 * 60,
            retention_days: 30,
            grace_seconds: 20,
            rate_per_second: 10_000,
            rate_burst: 10_000,
            lane_in_flight: 64,
            lane_rate_per_second: None,
            lane_rate_burst: None,
            delivery_deadline_seconds: 20,
            breaker_failures: 10,
            breaker_seconds: 30,
            disable_after_seconds: 5 * 24 * 60 * 60,
            client_errors: ClientErrorChoice::Retry,
            retry_schedule_seconds: None,
            log_format: LogFormat::Text,
            log_filter: "info,actix_server=warn".to_owned(),
        }
    }
}

/// The flags. Absent ones leave the word to the environment and the file.
#[derive(Clone, Debug, Default, Serialize, clap::Args)]
pub struct Flags {
    /// Settings file [default: ringback.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Base of absolute URLs in answers and webhooks [default: http://LISTEN]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// sqlite://PATH or postgres://… [default: ringback.db in the data folder]
    #[arg(long, value_name = "URL", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Folder for database file, master key and files [default: ringback-data]
    #[arg(long, value_name = "FOLDER", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// A private network that callbacks and imports may reach (repeatable)
    #[arg(long, value_name = "CIDR")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allow: Vec<IpNet>,
    /// Call public IPv4 addresses through NAT64 (64:ff9b::/96)
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub egress_nat64: bool,
    /// Refuse callbacks and imports over plain HTTP
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub https_only: bool,
    /// Jobs at once on this node [default: 64]
    #[arg(long, value_name = "N", value_parser = number::whole(check::SLOTS))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_slots: Option<usize>,
    /// Days that finished jobs are kept [default: 30]
    #[arg(long, value_name = "DAYS", value_parser = number::whole(check::DAYS_KEPT))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Seconds that running work may take to end at shutdown [default: 20]
    #[arg(long, value_name = "SECONDS", value_parser = number::whole(check::ANY_WAIT))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Largest file, bytes [default: 16 GiB]
    #[arg(long, value_name = "BYTES", value_parser = number::whole(0..=u64::MAX))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// Requests a second of an application without a rate of its own [default: 10000]
    #[arg(long, value_name = "N", value_parser = number::whole(check::RATE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<u32>,
    /// Requests at once of an application without a rate of its own [default: 10000]
    #[arg(long, value_name = "N", value_parser = number::whole(check::RATE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    /// Webhooks in flight at once to one origin of an application [default: 64]
    #[arg(long, value_name = "N", value_parser = number::whole(check::SLOTS))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane_in_flight: Option<usize>,
    /// Webhooks a second to one origin of an application [default: no limit]
    #[arg(long, value_name = "N", value_parser = number::any(check::LANE_RATE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane_rate_per_second: Option<f64>,
    /// Webhooks at once to one origin, when a rate is set [default: what comes in 50 ms]
    #[arg(long, value_name = "N", value_parser = number::whole(check::RATE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane_rate_burst: Option<u32>,
    /// Failures in a row that close a lane for a while; 0 never [default: 10]
    #[arg(long, value_name = "N", value_parser = number::whole(0..=u32::MAX))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_failures: Option<u32>,
    /// Seconds that a lane is closed at first, doubled up to 600 [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = number::whole(check::BREAKER_WAIT))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_seconds: Option<u64>,
    /// Seconds without a success until a failing endpoint is disabled; 0 never [default: 432000]
    #[arg(long, value_name = "SECONDS", value_parser = number::whole(check::ANY_WAIT))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_after_seconds: Option<u64>,
    /// Whether other 4xx answers are tried again briefly, or final [default: retry]
    #[arg(long, value_name = "CHOICE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_errors: Option<ClientErrorChoice>,
    /// Waits between delivery attempts, in seconds [default: 5,300,1800,7200,…]
    #[arg(long, value_name = "S,S,…", value_delimiter = ',',
        value_parser = number::whole(check::RETRY_WAIT))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_schedule_seconds: Option<Vec<u64>>,
    /// Limit of one delivery attempt, seconds [default: 20]
    #[arg(long, value_name = "SECONDS", value_parser = number::whole(check::DEADLINE))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_deadline_seconds: Option<u64>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// A filter such as info or ringback=debug,warn [default: info,actix_server=warn]
    #[arg(long, value_name = "FILTER", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_filter: Option<String>,
}

/// Settings that are text, whatever they look like: a folder may be called `123`, and a key may
/// happen to have no letter.
const TEXTS: [&str; 5] = ["public_url", "database", "data_dir", "master_key", "log_filter"];

/// The API key of commands that call a server, when no flag gives one. Not a server's setting.
pub fn api_key() -> Option<String> {
    Env::var("RINGBACK_API_KEY").filter(|key| !key.is_empty())
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// Flags over variables over the file over defaults. A file that was named must be there.
    pub fn load(flags: &Flags) -> Result<Config, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        match &flags.config {
            Some(path) if !path.is_file() => {
                return Err(ConfigError(format!("settings file {} is not there", path.display())));
            }
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None => figment = figment.merge(Toml::file("ringback.toml")),
        }
        // Variables of tests and of callers are not settings.
        let variables = Env::prefixed("RINGBACK_").filter(|name| {
            let other = name.starts_with("test_") || name == "api_key";
            !other && !TEXTS.iter().any(|text| name == *text)
        });
        figment = figment.merge(variables);
        for name in TEXTS {
            let variable = format!("RINGBACK_{}", name.to_ascii_uppercase());
            if let Some(value) = Env::var(&variable) {
                figment = figment.merge(Serialized::default(name, value));
            }
        }
        let config: Config = figment
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| ConfigError(describe(&error)))?;
        check::check(&config)?;
        Ok(config)
    }

    /// The database's URL.
    pub fn database_url(&self) -> String {
        self.database
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.data_dir.join("ringback.db").display()))
    }
}

/// What the client library of Postgres reads of the environment: for a process that is given nothing
/// else of it.
pub fn libpq_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| name == "HOME" || name.as_encoded_bytes().starts_with(b"PG"))
}

fn describe(error: &figment::Error) -> String {
    let mut lines = Vec::new();
    for single in error.clone() {
        let place = single.path.join(".");
        let metadata = single.metadata.as_ref();
        let file = metadata.and_then(|metadata| metadata.source.as_ref()?.file_path());
        let source = match (file, metadata) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(metadata)) => metadata.name.to_string(),
            (None, None) => "settings".to_owned(),
        };
        let what = match &single.kind {
            // A secret's value must not be repeated.
            _ if place == "master_key" => "master_key is not allowed: 64 hex digits".to_owned(),
            Kind::UnknownField(name, known) => {
                format!("{name} is not known; allowed: {}", known.join(", "))
            }
            kind if place.is_empty() => one_line(&kind.to_string()),
            kind => format!("{place}: {}", one_line(&kind.to_string())),
        };
        lines.push(format!("{source}: {what}"));
    }
    lines.join("; ")
}

/// A parser's picture of the place in the file takes several lines; its words are enough.
fn one_line(text: &str) -> String {
    let words = text.lines().map(str::trim).filter(|line| {
        let drawn = line.contains('|')
            && line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
        !line.is_empty() && !drawn
    });
    words.collect::<Vec<_>>().join(": ")
}
