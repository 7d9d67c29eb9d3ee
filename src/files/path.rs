//! Paths of files and directories: checked, normalised names, never used on a file system.
//!
//! One rule of tolerance: repeated slashes count as one, because clients join paths carelessly and
//! mean nothing by it. `.` and `..` are refused rather than resolved: whoever sends them means a
//! different tree than this one.
//!
//! Must not know: where bytes lie, or who owns a path.

use std::fmt;

/// The longest path, in bytes of UTF-8.
pub const MAX_PATH_BYTES: usize = 1024;
/// The longest component, in bytes; what common file systems allow, so that downloads can be saved.
pub const MAX_COMPONENT_BYTES: usize = 255;

/// The path of a file: `/`, then at least one component, no slash at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath(String);

/// The path of a directory: `/`, or like a file's. A slash at the end is read and dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectoryPath(String);

/// Why a text is no path. Each message shows the text, shortened, and says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path {0:?} must start with \"/\"")]
    NotAbsolute(String),
    #[error("the path {0:?} is longer than {MAX_PATH_BYTES} bytes")]
    TooLong(String),
    #[error("a part of the path {0:?} is longer than {MAX_COMPONENT_BYTES} bytes")]
    ComponentTooLong(String),
    #[error("the path {0:?} may not contain \".\" or \"..\" as a part")]
    Dots(String),
    #[error("the path {0:?} may not contain backslashes or control characters")]
    Character(String),
    #[error("the path {0:?} names a directory; a file's path ends in a name, without \"/\"")]
    Directory(String),
    #[error("the name {0:?} must be a single part of a path, without \"/\"")]
    Name(String),
}

impl FilePath {
    /// Reads the path of a file.
    pub fn parse(text: &str) -> Result<FilePath, PathError> {
        let path = normalise(text)?;
        if path == "/" || text.ends_with('/') {
            return Err(PathError::Directory(shown(text)));
        }
        Ok(FilePath(path))
    }

    /// The file called `name` in `directory`. The name is one component, taken as it is.
    pub fn join(directory: &DirectoryPath, name: &str) -> Result<FilePath, PathError> {
        if name.is_empty() || name.contains('/') {
            return Err(PathError::Name(shown(name)));
        }
        FilePath::parse(&format!("{}/{name}", directory.0))
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// What follows the last dot of the name, as it is written. A dot at the very start or end of
    /// a name makes no extension.
    pub fn extension(&self) -> Option<&str> {
        let (stem, extension) = self.name().rsplit_once('.')?;
        (!stem.is_empty() && !extension.is_empty()).then_some(extension)
    }

    /// Where the file lies.
    pub fn directory(&self) -> DirectoryPath {
        match self.0.rsplit_once('/') {
            Some((parent, _)) if !parent.is_empty() => DirectoryPath(parent.to_owned()),
            _ => DirectoryPath::root(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DirectoryPath {
    /// Reads the path of a directory: with or without a slash at the end, `/` included.
    pub fn parse(text: &str) -> Result<DirectoryPath, PathError> {
        normalise(text).map(DirectoryPath)
    }

    /// The directory that everything lies in.
    pub fn root() -> DirectoryPath {
        DirectoryPath("/".to_owned())
    }

    /// Without a slash at the end, but `/` for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DirectoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text with single slashes and none at the end; `/` when there are no components.
fn normalise(text: &str) -> Result<String, PathError> {
    // The limit is on what was sent, so that no request makes us look at megabytes of slashes.
    if text.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong(shown(text)));
    }
    if !text.starts_with('/') {
        return Err(PathError::NotAbsolute(shown(text)));
    }
    if text.chars().any(|c| c == '\\' || c.is_control()) {
        return Err(PathError::Character(shown(text)));
    }
    let mut path = String::with_capacity(text.len());
    for component in text.split('/').filter(|component| !component.is_empty()) {
        if component == "." || component == ".." {
            return Err(PathError::Dots(shown(text)));
        }
        if component.len() > MAX_COMPONENT_BYTES {
            return Err(PathError::ComponentTooLong(shown(text)));
        }
        path.push('/');
        path.push_str(component);
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

/// As much of a refused text as an error message should carry.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_paths_are_normalised() {
        for (text, path) in [
            ("/a", "/a"),
            ("//a///b.txt", "/a/b.txt"),
            ("/a b/…/ü.tar.gz", "/a b/…/ü.tar.gz"),
            ("/...", "/..."),
            ("/.hidden", "/.hidden"),
        ] {
            assert_eq!(FilePath::parse(text).unwrap().as_str(), path);
        }
    }

    #[test]
    fn bad_paths_are_refused_by_reason() {
        type Reason = fn(String) -> PathError;
        let refused: [(&str, Reason); 13] = [
            ("", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("../a", PathError::NotAbsolute),
            ("/", PathError::Directory),
            ("///", PathError::Directory),
            ("/a/", PathError::Directory),
            ("/a/../b", PathError::Dots),
            ("/a/./b", PathError::Dots),
            ("/..", PathError::Dots),
            ("/a\\b", PathError::Character),
            ("/a\0", PathError::Character),
            ("/a\nb", PathError::Character),
            ("/a\u{85}b", PathError::Character),
        ];
        for (text, reason) in refused {
            assert_eq!(FilePath::parse(text), Err(reason(text.to_owned())));
        }
    }

    #[test]
    fn lengths_are_exact() {
        let component = "x".repeat(MAX_COMPONENT_BYTES);
        assert!(FilePath::parse(&format!("/{component}")).is_ok());
        assert!(matches!(
            FilePath::parse(&format!("/{component}x")),
            Err(PathError::ComponentTooLong(_))
        ));
        let longest = format!("/{component}").repeat(4);
        assert_eq!(longest.len(), MAX_PATH_BYTES);
        assert!(FilePath::parse(&longest).is_ok());
        let error = FilePath::parse(&format!("{longest}é")).unwrap_err();
        assert!(matches!(error, PathError::TooLong(_)));
        assert!(error.to_string().len() < 150 && error.to_string().contains("1024"));
    }

    #[test]
    fn directories_may_end_in_a_slash() {
        for (text, path) in [("/", "/"), ("//", "/"), ("/a/", "/a"), ("/a/b", "/a/b")] {
            assert_eq!(DirectoryPath::parse(text).unwrap().as_str(), path);
        }
        assert!(DirectoryPath::parse("").is_err());
        assert!(DirectoryPath::parse("/a/../").is_err());
    }

    #[test]
    fn parts_of_a_path() {
        let path = FilePath::parse("/a/b/c.tar.GZ").unwrap();
        assert_eq!((path.name(), path.extension()), ("c.tar.GZ", Some("GZ")));
        assert_eq!(path.directory().as_str(), "/a/b");
        assert_eq!(FilePath::parse("/a").unwrap().directory(), DirectoryPath::root());
        for name in ["/.profile", "/a.b/c", "/c."] {
            assert_eq!(FilePath::parse(name).unwrap().extension(), None, "{name}");
        }
    }

    #[test]
    fn joining_takes_one_component() {
        let join = |directory: &str, name: &str| {
            FilePath::join(&DirectoryPath::parse(directory).unwrap(), name)
        };
        assert_eq!(join("/", "a.txt").unwrap().as_str(), "/a.txt");
        assert_eq!(join("/a/", "b").unwrap().as_str(), "/a/b");
        for name in ["", "a/b", "/a", "a/", "..", "a\\b"] {
            assert!(join("/d", name).is_err(), "{name}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
            failure_persistence: None,
            ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn parsing_a_parsed_path_changes_nothing(text in "(/|[a-z.]|\\PC){0,40}") {
            if let Ok(path) = FilePath::parse(&format!("/{text}")) {
                proptest::prop_assert_eq!(FilePath::parse(path.as_str()), Ok(path.clone()));
                let joined = FilePath::join(&path.directory(), path.name());
                proptest::prop_assert_eq!(joined, Ok(path));
            }
        }
    }
}
