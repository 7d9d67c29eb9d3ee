//! The delivery formats this server has, by name.
//!
//! Must not know: any vendor. Faces register theirs at start, and nothing is added later.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{DeliveryFormat, Standard};

/// The formats by name; cheap to copy once built.
#[derive(Clone)]
pub struct Formats {
    by_name: BTreeMap<&'static str, Arc<dyn DeliveryFormat>>,
}

/// Why a name gives no format, or a format gets no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("there is no delivery format {name:?}; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("the delivery format {name:?} is registered twice")]
    Duplicate { name: &'static str },
}

impl Formats {
    /// Standard Webhooks and nothing else.
    pub fn standard_only() -> Formats {
        Formats::with_standard(Standard::default())
    }

    /// Standard Webhooks as given, and nothing else.
    pub fn with_standard(standard: Standard) -> Formats {
        let standard: Arc<dyn DeliveryFormat> = Arc::new(standard);
        Formats { by_name: BTreeMap::from([(standard.name(), standard)]) }
    }

    /// Adds a format. A name is taken once: stored receivers rely on what it means.
    pub fn register(&mut self, format: Arc<dyn DeliveryFormat>) -> Result<(), FormatError> {
        let name = format.name();
        if self.by_name.contains_key(name) {
            return Err(FormatError::Duplicate { name });
        }
        self.by_name.insert(name, format);
        Ok(())
    }

    /// The format of that name; the error lists the names there are.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn DeliveryFormat>, FormatError> {
        self.by_name.get(name).ok_or_else(|| FormatError::Unknown {
            name: name.chars().take(64).collect(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.by_name.keys().copied()
    }
}

impl fmt::Debug for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_format_once() {
        let mut formats = Formats::standard_only();
        assert_eq!(formats.get("standard").unwrap().name(), "standard");
        assert_eq!(
            formats.register(Arc::new(Standard::default())),
            Err(FormatError::Duplicate { name: "standard" })
        );
        assert_eq!(format!("{formats:?}"), r#"["standard"]"#);
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let Err(error) = Formats::standard_only().get("wix").map(|_| ()) else { panic!("found") };
        assert_eq!(error.to_string(), r#"there is no delivery format "wix"; there are: standard"#);
    }
}
