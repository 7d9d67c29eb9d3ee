//! Where a job's output goes: a path of its own, or a name to be found in a directory.
//!
//! Must not know which job type asks.

use serde_json::{Value, json};

use super::members::Members;
use crate::files::{DirectoryPath, FilePath, PathError};

/// Members that other services' clients always send along, as null.
const UNSUPPORTED: [&str; 2] = ["lifecycle", "bucket"];
const ALLOWED: [&str; 5] = ["path", "directory", "acl", UNSUPPORTED[0], UNSUPPORTED[1]];

/// A destination that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Where.
    pub place: Place,
    /// public or private.
    pub acl: &'static str,
}

/// The two ways to say where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Exactly there.
    File(FilePath),
    /// In there, under a name that the job finds.
    Directory(DirectoryPath),
}

impl Destination {
    /// Reads a destination; the error names the value and what is allowed.
    pub fn read(value: &Value, place: &str) -> Result<Destination, String> {
        let (members, acl) = members(value, place)?;
        let place = match (members.text("path")?, members.text("directory")?) {
            (Some(path), None) => Place::File(
                FilePath::parse(path).map_err(|why| format!("{}: {why}", members.place("path")))?,
            ),
            (None, Some(directory)) => Place::Directory(parse(&members, "directory", directory)?),
            (both, _) => return Err(one_of(place, both.is_some())),
        };
        Ok(Destination { place, acl })
    }

    /// Reads a destination that holds many files: `path` means a directory, too.
    pub fn read_directory(
        value: &Value,
        place: &str,
    ) -> Result<(DirectoryPath, &'static str), String> {
        let (members, acl) = members(value, place)?;
        let (name, text) = match (members.text("path")?, members.text("directory")?) {
            (Some(path), None) => ("path", path),
            (None, Some(directory)) => ("directory", directory),
            (both, _) => return Err(one_of(place, both.is_some())),
        };
        Ok((parse(&members, name, text)?, acl))
    }

    /// The path of the output; `name` is used in a directory.
    pub fn path_for(&self, name: &str) -> Result<FilePath, PathError> {
        match &self.place {
            Place::File(path) => Ok(path.clone()),
            Place::Directory(directory) => FilePath::join(directory, name),
        }
    }

    /// As it is stored and shown.
    pub fn shown(&self) -> Value {
        match &self.place {
            Place::File(path) => json!({"path": path.as_str(), "acl": self.acl}),
            Place::Directory(directory) => {
                json!({"directory": directory.as_str(), "acl": self.acl})
            }
        }
    }
}

fn members<'a>(value: &'a Value, place: &str) -> Result<(Members<'a>, &'static str), String> {
    let members = Members::read(value, place, &ALLOWED)?;
    if let Some(name) = UNSUPPORTED.into_iter().find(|name| members.get(name).is_some()) {
        return Err(format!("{} is not supported; allowed: null", members.place(name)));
    }
    let acl = match members.text("acl")? {
        None | Some("private") => "private",
        Some("public") => "public",
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            return Err(format!("{} {other:?}; allowed: public, private", members.place("acl")));
        }
    };
    Ok((members, acl))
}

fn parse(members: &Members<'_>, name: &str, text: &str) -> Result<DirectoryPath, String> {
    DirectoryPath::parse(text).map_err(|why| format!("{}: {why}", members.place(name)))
}

fn one_of(place: &str, both: bool) -> String {
    let found = if both { "both path and directory" } else { "neither path nor directory" };
    format!("{place} has {found}; allowed: exactly one of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: Value) -> Result<Value, String> {
        Destination::read(&value, "destination").map(|destination| destination.shown())
    }

    #[test]
    fn paths_are_normalised_and_the_rest_has_defaults() {
        assert_eq!(
            shown(json!({"path": "//a///b", "directory": null, "lifecycle": null, "bucket": null})),
            Ok(json!({"path": "/a/b", "acl": "private"}))
        );
        assert_eq!(
            shown(json!({"directory": "/a/", "acl": "public"})),
            Ok(json!({"directory": "/a", "acl": "public"}))
        );
        let (directory, acl) =
            Destination::read_directory(&json!({"path": "/a/"}), "destination").unwrap();
        assert_eq!((directory.as_str(), acl), ("/a", "private"));
    }

    #[test]
    fn errors_say_where_what_and_what_else() {
        for (value, error) in [
            (json!("x"), "destination is a string; allowed: an object"),
            (json!({}), "destination has neither path nor directory; allowed: exactly one of them"),
            (
                json!({"path": "/a", "directory": "/b"}),
                "destination has both path and directory; allowed: exactly one of them",
            ),
            (
                json!({"path": "/a", "acl": "all"}),
                "destination.acl \"all\"; allowed: public, private",
            ),
            (
                json!({"path": "/a", "lifecycle": {"age": 1}}),
                "destination.lifecycle is not supported; allowed: null",
            ),
            (
                json!({"path": "/a", "x": 1}),
                "destination.x is not known; allowed: path, directory, acl, lifecycle, bucket",
            ),
            (json!({"path": "a"}), "destination.path: the path \"a\" must start with \"/\""),
        ] {
            assert_eq!(shown(value), Err(error.to_owned()));
        }
        assert!(shown(json!({"path": "/a/"})).unwrap_err().contains("names a directory"));
        assert!(shown(json!({"directory": "/a/../b"})).unwrap_err().contains("destination.dir"));
    }
}
