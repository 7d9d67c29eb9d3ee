//! Where the data is: the parsed form of a database's URL.

use super::error::StoreError;

/// Which database a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One file, one server.
    Sqlite,
    /// A server of its own, many nodes.
    Postgres,
}

/// Where the data is: the parsed form of `--database`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Which kind.
    pub backend: Backend,
    /// Path for SQLite, the whole URL for Postgres.
    pub address: String,
}

impl Location {
    /// Parses `sqlite://PATH` or `postgres://…`.
    pub fn parse(url: &str) -> Result<Location, StoreError> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            if path.is_empty() {
                return Err(StoreError::Setup(
                    "sqlite:// needs a path: sqlite://ringback.db".into(),
                ));
            }
            return Ok(Location { backend: Backend::Sqlite, address: path.to_owned() });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Location { backend: Backend::Postgres, address: url.to_owned() });
        }
        // A URL may hold a password, so only its scheme is named.
        let scheme = url.split(':').next().unwrap_or_default();
        Err(StoreError::Setup(format!(
            "database `{scheme}:…` is not known; allowed: sqlite://PATH, postgres://USER@HOST/NAME"
        )))
    }

    /// For people: no password.
    pub fn shown(&self) -> String {
        match self.backend {
            Backend::Sqlite => format!("sqlite://{}", self.address),
            Backend::Postgres => match url::Url::parse(&self.address) {
                Ok(mut url) => {
                    if url.password().is_some() {
                        let _ = url.set_password(Some("***"));
                    }
                    url.set_query(None);
                    url.to_string()
                }
                Err(_) => "postgres://…".to_owned(),
            },
        }
    }
}
