//! `ringback apps`: applications and their credentials, on the database directly.

use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use super::output::say;
use crate::app::open_engine;
use crate::config::{Config, Flags, number};
use crate::engine::{Engine, parse_scopes};
use crate::ids::Timestamp;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an application; its API key and signing secret are shown this once
    Create {
        /// For people; need not be unique
        name: String,
        /// What the key may do: jobs:read, jobs:write, files:…, deliveries:…, or a family, or *
        #[arg(long, default_value = "*", value_name = "SCOPE,…")]
        scopes: String,
        /// The key works until then, RFC 3339
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        #[command(flatten)]
        rate: Rate,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show applications and their credentials, never a secret
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Make a new API key; older ones end after the overlap
    RotateKey {
        /// Id or name
        application: String,
        /// Seconds that older keys go on working
        #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = overlap())]
        overlap: i64,
        /// What the new key may do; by default what the newest one may
        #[arg(long, value_name = "SCOPE,…")]
        scopes: Option<String>,
        /// The key works until then, RFC 3339
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make one more API key beside the others
    CreateKey {
        /// Id or name
        application: String,
        /// What the key may do
        #[arg(long, default_value = "*", value_name = "SCOPE,…")]
        scopes: String,
        /// The key works until then, RFC 3339
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// End one API key or signing secret within 5 seconds, for good; not the only secret
    Revoke {
        /// Id or name
        application: String,
        /// Id of the credential, from `apps list`
        credential: String,
    },
    /// Make a new signing secret; older ones sign beside it until the overlap is over
    RotateSecret {
        /// Id or name
        application: String,
        /// Seconds that older secrets go on signing
        #[arg(long, default_value_t = 86_400, value_name = "SECONDS", value_parser = overlap())]
        overlap: i64,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Switch an application off: its keys are refused within 5 seconds
    Disable {
        /// Id or name
        application: String,
    },
    /// Switch an application on again
    Enable {
        /// Id or name
        application: String,
    },
    /// Set an application's own request rate, or none for the server's default
    SetRate {
        /// Id or name
        application: String,
        #[command(flatten)]
        rate: Rate,
    },
}

/// Up to a year: an old secret that signs for ever was not rotated.
fn overlap() -> impl Fn(&str) -> Result<i64, String> + Clone {
    number::whole(0..=31_536_000)
}

/// Requests of an application.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Rate {
    /// Requests a second
    #[arg(long, value_name = "N", value_parser = number::whole::<i64>(1..=1_000_000))]
    rate_per_second: Option<i64>,
    /// Requests at once [default: as many as a second]
    #[arg(long, value_name = "N", value_parser = number::whole::<i64>(1..=1_000_000))]
    rate_burst: Option<i64>,
}

impl Rate {
    fn pair(&self) -> anyhow::Result<Option<(i64, i64)>> {
        match (self.rate_per_second, self.rate_burst) {
            (Some(rate), burst) => Ok(Some((rate, burst.unwrap_or(rate)))),
            (None, Some(_)) => anyhow::bail!("--rate-burst needs --rate-per-second"),
            (None, None) => Ok(None),
        }
    }
}

pub(super) fn run(flags: &Flags, command: Command) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    // Only `create` may begin a new installation; for the others a missing folder is a mistake.
    let begins = matches!(command, Command::Create { .. });
    if !begins && needs_data_dir(&config) && !config.data_dir.is_dir() {
        anyhow::bail!("the data folder {} is not there", config.data_dir.display());
    }
    super::runtime()?.block_on(async {
        let engine = open_engine(&config).await?;
        let result = execute(&engine, command).await;
        engine.close();
        result
    })
}

/// Whether the master key or the database is to be found there.
fn needs_data_dir(config: &Config) -> bool {
    let url = config.database_url();
    let file = url.strip_prefix("sqlite://").map(Path::new);
    config.master_key.is_none() || file.is_some_and(|file| file.starts_with(&config.data_dir))
}

fn parse_time(text: Option<&str>) -> anyhow::Result<Option<Timestamp>> {
    text.map(str::parse::<Timestamp>).transpose().map_err(anyhow::Error::msg)
}

async fn execute(engine: &Engine, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create { name, scopes, expires_at, rate, json } => {
            let scopes = parse_scopes(&scopes).map_err(anyhow::Error::msg)?;
            let expires_at = parse_time(expires_at.as_deref())?;
            let new = engine.create_application(&name, &scopes, expires_at, rate.pair()?).await?;
            if json {
                let object = json!({
                    "id": new.id,
                    "name": new.name,
                    "apiKey": new.api_key,
                    "signingSecret": new.signing_secret,
                });
                say!("{object}");
            } else {
                say!("application     {} ({})", new.name, new.id);
                say!("API key         {}", new.api_key);
                say!("signing secret  {}", new.signing_secret);
                say!("Both are shown only now.");
            }
        }
        Command::List { json } => list(engine, json).await?,
        Command::RotateKey { application, overlap, scopes, expires_at, json } => {
            let scopes = scopes.as_deref().map(parse_scopes).transpose();
            let scopes = scopes.map_err(anyhow::Error::msg)?;
            let expires_at = parse_time(expires_at.as_deref())?;
            let row = engine.find_application(&application).await?;
            let key = engine.add_key(row.id, scopes, Some(overlap), expires_at).await?;
            show(json, "apiKey", &key);
        }
        Command::CreateKey { application, scopes, expires_at, json } => {
            let scopes = parse_scopes(&scopes).map_err(anyhow::Error::msg)?;
            let expires_at = parse_time(expires_at.as_deref())?;
            let row = engine.find_application(&application).await?;
            let key = engine.add_key(row.id, Some(scopes), None, expires_at).await?;
            show(json, "apiKey", &key);
        }
        Command::Revoke { application, credential } => {
            let id = crate::ids::parse_id(&credential).ok_or_else(|| {
                anyhow::anyhow!("`{credential}` is not the id of a credential; see `apps list`")
            })?;
            let row = engine.find_application(&application).await?;
            engine.revoke_credential(row.id, id).await?;
            say!("{id} is revoked");
        }
        Command::RotateSecret { application, overlap, json } => {
            let row = engine.find_application(&application).await?;
            let secret = engine.rotate_secret(row.id, overlap).await?;
            show(json, "signingSecret", &secret);
        }
        Command::Disable { application } => {
            let row = engine.find_application(&application).await?;
            engine.set_application_disabled(row.id, true).await?;
            say!("{} is disabled", row.name);
        }
        Command::Enable { application } => {
            let row = engine.find_application(&application).await?;
            engine.set_application_disabled(row.id, false).await?;
            say!("{} is enabled", row.name);
        }
        Command::SetRate { application, rate } => {
            let row = engine.find_application(&application).await?;
            let rate = rate.pair()?;
            engine.set_application_rate(row.id, rate).await?;
            match rate {
                Some((rate, burst)) => {
                    say!("{}: {rate} requests a second, {burst} at once", row.name);
                }
                None => say!("{}: the server's default rate", row.name),
            }
        }
    }
    Ok(())
}

fn show(json: bool, name: &str, value: &str) {
    if json {
        say!("{}", json!({ name: value }));
    } else {
        say!("{value}");
    }
}

async fn list(engine: &Engine, json: bool) -> anyhow::Result<()> {
    let id = |bytes: &[u8]| uuid::Uuid::from_slice(bytes).unwrap_or_default();
    let time = |micros: Option<i64>| micros.map(|micros| Timestamp(micros).to_string());
    let mut objects = Vec::new();
    for (row, credentials) in engine.list_applications().await? {
        let shown: Vec<_> = credentials
            .iter()
            .map(|credential| {
                json!({
                    "id": id(&credential.public_id),
                    "kind": credential.kind,
                    "scopes": credential.scopes.split(',').filter(|s| !s.is_empty()).collect::<Vec<_>>(),
                    "dateCreated": time(Some(credential.created_at)),
                    "dateLastUsed": time(credential.last_used_at),
                    "dateExpires": time(credential.expires_at),
                    "dateRevoked": time(credential.revoked_at),
                })
            })
            .collect();
        objects.push(json!({
            "id": id(&row.public_id),
            "name": row.name,
            "disabled": row.disabled_at.is_some(),
            "ratePerSecond": row.rate_per_second,
            "rateBurst": row.rate_burst,
            "dateCreated": time(Some(row.created_at)),
            "credentials": shown,
        }));
    }
    if json {
        say!("{}", serde_json::Value::Array(objects));
        return Ok(());
    }
    for object in &objects {
        let text = |name: &str| object.get(name).and_then(|v| v.as_str()).unwrap_or("-").to_owned();
        let disabled = object.get("disabled").and_then(serde_json::Value::as_bool) == Some(true);
        say!("{}  {}{}", text("id"), text("name"), if disabled { "  (disabled)" } else { "" });
        for credential in object.get("credentials").and_then(|v| v.as_array()).into_iter().flatten()
        {
            let text = |name: &str| {
                credential.get(name).and_then(|v| v.as_str()).unwrap_or("-").to_owned()
            };
            let scopes: Vec<&str> = credential
                .get("scopes")
                .and_then(|v| v.as_array())
                .into_iter()
                .flatten()
                .filter_map(serde_json::Value::as_str)
                .collect();
            say!(
                "    {:<14}  {}  made {}  last used {}  expires {}  revoked {}  {}",
                text("kind"),
                text("id"),
                text("dateCreated"),
                text("dateLastUsed"),
                text("dateExpires"),
                text("dateRevoked"),
                scopes.join(",")
            );
        }
    }
    Ok(())
}
