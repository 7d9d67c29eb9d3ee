//! The key that seals secrets: given as a setting, or kept in the data folder.

use std::path::Path;

use super::{Config, ConfigError};

impl Config {
    /// The master key: given, or kept in the data folder; created there, readable by its owner
    /// alone, when there is none.
    pub fn master_key(&self, random: impl FnOnce() -> [u8; 32]) -> Result<[u8; 32], ConfigError> {
        if let Some(text) = &self.master_key {
            return parse_key(text.trim())
                .ok_or_else(|| ConfigError("master_key must be 64 hex digits".to_owned()));
        }
        let path = self.data_dir.join("master.key");
        let failed = |what: &str, error: std::io::Error| {
            ConfigError(format!("cannot {what} the master key {}: {error}", path.display()))
        };
        if let Some(key) = create_key(&path, random).map_err(|error| failed("create", error))? {
            return Ok(key);
        }
        let text = std::fs::read_to_string(&path).map_err(|error| failed("read", error))?;
        parse_key(text.trim())
            .ok_or_else(|| ConfigError(format!("{} does not hold 64 hex digits", path.display())))
    }
}

fn parse_key(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}

/// Creates the key file; `None` when there is one already. The name appears only once the
/// content is on disk, so that no process ever reads half a key.
fn create_key(path: &Path, random: impl FnOnce() -> [u8; 32]) -> std::io::Result<Option<[u8; 32]>> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if path.exists() {
        return Ok(None);
    }
    let key = random();
    let draft = path.with_extension(format!("draft-{}", uuid::Uuid::new_v4().simple()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(format!("{}\n", hex::encode(key)).as_bytes())?;
    file.sync_all()?;
    // Linking fails when another process was faster; then its key is the key.
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(Some(key)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_key_is_created_once_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
        let first = config.master_key(|| [7; 32]).unwrap();
        let second = config.master_key(|| [8; 32]).unwrap();
        assert_eq!((first, second), ([7; 32], [7; 32]));
        let mode = std::fs::metadata(folder.path().join("master.key")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_given_master_key_must_be_64_hex_digits() {
        let config = Config { master_key: Some("abc".to_owned()), ..Config::default() };
        let error = config.master_key(|| [0; 32]).unwrap_err().to_string();
        assert!(error.contains("64 hex digits") && !error.contains("abc"), "{error}");
    }
}
