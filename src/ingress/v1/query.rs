//! Strict reading of query and path parameters: unknown names are refused, and so is a second
//! value where one is wanted.

use std::str::FromStr;

use actix_web::HttpRequest;
use uuid::Uuid;

use super::parse::quoted;
use crate::files::FilePath;
use crate::ids::parse_id;
use crate::ingress::percent;
use crate::ingress::problem::{Code, Problem};

/// Values that one filter may have.
const MAX_VALUES: usize = 20;

/// The parameters of a query.
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// A parameter that cannot be taken; `text` goes on after its name.
pub fn invalid(name: &str, text: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InvalidRequest, format!("`{name}` {text}")).at_parameter(name)
}

/// A value that is none of the words that can be taken.
pub fn not_among(name: &str, given: &str, allowed: &[&str]) -> Problem {
    unexpected(name, given, &format!("one of {}", allowed.join(", ")))
}

/// A value that is not what is expected.
pub fn unexpected(name: &str, given: &str, expected: &str) -> Problem {
    invalid(name, format!("is {}; expected {expected}", quoted(given)))
}

impl Query {
    /// Reads the query of a request: `single` parameters at most once, `lists` repeatedly.
    pub fn read(request: &HttpRequest, single: &[&str], lists: &[&str]) -> Result<Query, Problem> {
        Query::parse(request.query_string(), single, lists)
    }

    /// Refuses every parameter.
    pub fn none(request: &HttpRequest) -> Result<(), Problem> {
        Query::read(request, &[], &[]).map(|_| ())
    }

    fn parse(text: &str, single: &[&str], lists: &[&str]) -> Result<Query, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let decode = |text| percent::decode(text, true).filter(|text| !text.contains('\0'));
            let Some(name) = decode(name) else {
                let detail = "the name of a query parameter is not readable UTF-8";
                return Err(Problem::new(Code::InvalidRequest, detail));
            };
            if !single.contains(&&*name) && !lists.contains(&&*name) {
                return Err(unknown(&name, single, lists));
            }
            let value = decode(value).ok_or_else(|| invalid(&name, "is not readable UTF-8"))?;
            let before = pairs.iter().filter(|(known, _)| *known == name).count();
            if before > 0 && single.contains(&&*name) {
                return Err(invalid(&name, "is given twice; give it once"));
            }
            if before >= MAX_VALUES {
                let text = format!("is given more than {MAX_VALUES} times");
                return Err(invalid(&name, text));
            }
            pairs.push((name, value));
        }
        Ok(Query { pairs })
    }

    /// All values of a list.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value of a parameter.
    pub fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// A whole number within bounds.
    pub fn integer<N>(&self, name: &str, least: N, most: N) -> Result<Option<N>, Problem>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.one(name) else { return Ok(None) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse::<N>().ok().filter(|_| digits);
        match number.filter(|number| (&least..=&most).contains(&number)) {
            Some(number) => Ok(Some(number)),
            None => Err(unexpected(name, value, &format!("a whole number from {least} to {most}"))),
        }
    }

    /// An id.
    pub fn id(&self, name: &str) -> Result<Option<Uuid>, Problem> {
        Ok(self.ids(name)?.first().copied())
    }

    /// Ids.
    pub fn ids(&self, name: &str) -> Result<Vec<Uuid>, Problem> {
        let read = |text| parse_id(text).ok_or_else(|| unexpected(name, text, "a UUID"));
        self.all(name).map(read).collect()
    }
}

fn unknown(name: &str, single: &[&str], lists: &[&str]) -> Problem {
    let shown: String = name.chars().take(64).collect();
    let known: Vec<&str> = single.iter().chain(lists).copied().collect();
    let allowed = match known.is_empty() {
        true => "this operation has none".to_owned(),
        false => format!("allowed: {}", known.join(", ")),
    };
    let detail = format!("query parameter `{shown}` is not known; {allowed}");
    Problem::new(Code::UnknownField, detail).at_parameter(shown)
}

/// The id in the path.
pub fn path_id(request: &HttpRequest, name: &'static str) -> Result<Uuid, Problem> {
    let text = request.match_info().get(name).unwrap_or_default();
    parse_id(text).ok_or_else(|| unexpected(name, text, "a UUID"))
}

/// The path of a file behind `/v1/files`, decoded by our own rules and not the router's.
pub fn file_path(request: &HttpRequest) -> Result<FilePath, Problem> {
    let raw = request.uri().path();
    let raw = raw.strip_prefix("/v1/files").unwrap_or(raw);
    let path = percent::decode(raw, false).ok_or_else(|| invalid("path", "is not UTF-8"))?;
    FilePath::parse(&path)
        .map_err(|error| Problem::new(Code::InvalidRequest, error.to_string()).at_parameter("path"))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn parse(text: &str) -> Result<Query, Problem> {
        Query::parse(text, &["one", "wait"], &["list"])
    }

    #[test]
    fn values_are_decoded_in_order() {
        let query = parse("list=a%20b&list=c+d&&one=%C3%BC&list").unwrap();
        assert_eq!(query.all("list").collect::<Vec<_>>(), ["a b", "c d", ""]);
        assert_eq!(query.one("one"), Some("\u{fc}"));
    }

    #[test]
    fn what_is_not_expected_is_refused() {
        assert_eq!(parse("other=1").err().unwrap().code, Code::UnknownField);
        for bad in ["one=1&one=1", "one=%FF", "one=%00", "%FF=1", &"list=a&".repeat(21)] {
            assert_eq!(parse(bad).err().unwrap().code, Code::InvalidRequest, "{bad}");
        }
    }

    #[test]
    fn integers() {
        let wait = |text: &str| {
            parse(&format!("wait={text}")).unwrap().integer("wait", 0, 60).ok().flatten()
        };
        assert_eq!((wait("0"), wait("60"), wait("007")), (Some(0), Some(60), Some(7)));
        for bad in ["", "61", "-1", "+1", "1.0", "1e1", " 1", "99999999999999999999"] {
            assert_eq!(wait(bad), None, "{bad}");
        }
        assert_eq!(parse("").unwrap().integer("wait", 0, 60).unwrap(), None);
    }

    #[test]
    fn file_paths_keep_their_own_rules() {
        let path = |uri: &str| {
            let request = TestRequest::with_uri(uri).to_http_request();
            file_path(&request).map(|path| path.to_string()).ok()
        };
        for (uri, expected) in [
            ("/v1/files/a/b.txt", Some("/a/b.txt")),
            ("/v1/files/a%2Fb%20c", Some("/a/b c")),
            ("/v1/files//a///b", Some("/a/b")),
            ("/v1/files/100%25+", Some("/100%+")),
            ("/v1/files/a/../b", None),
            ("/v1/files/%2e%2e/b", None),
            ("/v1/files/a%00", None),
            ("/v1/files/a%5Cb", None),
            ("/v1/files/%FF", None),
            ("/v1/files/", None),
            ("/v1/files/a/", None),
        ] {
            assert_eq!(path(uri).as_deref(), expected, "{uri}");
        }
    }
}
