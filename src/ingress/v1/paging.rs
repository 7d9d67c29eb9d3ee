//! Pages of lists: how many, and from where on.
//!
//! A token is sealed text: callers see no key and no count in it, and one that was changed, made
//! for another list, for other filters or for another application does not open.

use sha2::{Digest, Sha256};

use super::query::Query;
use crate::engine::{Caller, Engine};
use crate::ingress::problem::{Code, Problem};

/// Parameters of every paged list.
pub const PAGE_SIZE: &str = "pageSize";
/// See [`PAGE_SIZE`].
pub const PAGE_TOKEN: &str = "pageToken";

const DEFAULT_SIZE: usize = 20;
const MAX_SIZE: usize = 100;
const MAX_TOKEN_BYTES: usize = 4_096;
/// What a token looks like inside: this number, the binding, then the list's own position.
const VERSION: u8 = 1;
const BINDING_BYTES: usize = 16;

/// What tokens of one list are bound to.
pub struct Binding([u8; BINDING_BYTES]);

impl Binding {
    /// A list of a caller with its filters. `filters` are all parameters that choose or order
    /// entries, in any form that is equal for equal lists.
    pub fn new<'a>(
        caller: &Caller,
        list: &str,
        filters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Binding {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update(text.len().to_be_bytes());
            hash.update(text.as_bytes());
        };
        add(list);
        add(&caller.issuer());
        let mut filters: Vec<_> = filters.into_iter().collect();
        filters.sort_unstable();
        filters.dedup();
        for (name, value) in filters {
            add(name);
            add(value);
        }
        let mut binding = [0; BINDING_BYTES];
        for (to, from) in binding.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Binding(binding)
    }
}

/// Entries wanted.
pub fn size(query: &Query) -> Result<usize, Problem> {
    Ok(query.integer(PAGE_SIZE, 1, MAX_SIZE)?.unwrap_or(DEFAULT_SIZE))
}

/// The position that the request's token holds.
pub fn position(
    engine: &Engine,
    binding: &Binding,
    query: &Query,
) -> Result<Option<Vec<u8>>, Problem> {
    let Some(token) = query.one(PAGE_TOKEN) else { return Ok(None) };
    let opened = opened(engine, binding, token);
    opened.map(Some).ok_or_else(|| refused().at_parameter(PAGE_TOKEN))
}

/// The position that a token holds.
pub fn opened(engine: &Engine, binding: &Binding, token: &str) -> Option<Vec<u8>> {
    let opened = Some(token).filter(|token| token.len() <= MAX_TOKEN_BYTES);
    let opened = engine.open_token(opened?)?;
    let bound = opened.strip_prefix(&[VERSION])?.strip_prefix(&binding.0)?;
    Some(bound.to_vec())
}

/// A token for the position that the next page starts behind, if there is a next page.
pub fn token(
    engine: &Engine,
    binding: &Binding,
    position: Option<impl AsRef<[u8]>>,
) -> Result<Option<String>, Problem> {
    let Some(position) = position else { return Ok(None) };
    let mut plain = vec![VERSION];
    plain.extend_from_slice(&binding.0);
    plain.extend_from_slice(position.as_ref());
    Ok(Some(engine.seal_token(&plain)?))
}

/// A position of whole numbers.
pub fn written<const N: usize>(numbers: [i64; N]) -> Vec<u8> {
    numbers.map(i64::to_be_bytes).concat()
}

/// Whole numbers of a position; a token of ours holds as many as it should.
pub fn numbers<const N: usize>(position: &[u8]) -> Result<[i64; N], Problem> {
    let mut numbers = [0; N];
    if position.len() != N * size_of::<i64>() {
        return Err(refused());
    }
    for (number, bytes) in numbers.iter_mut().zip(position.chunks_exact(size_of::<i64>())) {
        *number = i64::from_be_bytes(bytes.try_into().map_err(|_| refused())?);
    }
    Ok(numbers)
}

/// The refusal of a token.
pub fn refused() -> Problem {
    let detail =
        format!("`{PAGE_TOKEN}` was not made by this list with these filters; start without it");
    Problem::new(Code::PageTokenInvalid, detail)
}

/// The parameters of these names as they were given, for a binding.
pub fn filters<'a>(
    query: &'a Query,
    names: &'a [&'a str],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    names.iter().flat_map(move |name| query.all(name).map(move |value| (*name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(id: u128) -> Caller {
        Caller {
            application: 1,
            application_id: uuid::Uuid::from_u128(id),
            credential: 1,
            credential_id: uuid::Uuid::nil(),
            scopes: Vec::new(),
            expires_at: None,
            rate_per_second: None,
            rate_burst: None,
            barred: None,
        }
    }

    #[test]
    fn a_binding_tells_lists_callers_and_filters_apart() {
        let first = Binding::new(&caller(1), "jobs", [("status", "error"), ("type", "a")]).0;
        let same =
            Binding::new(&caller(1), "jobs", [("type", "a"), ("status", "error"), ("type", "a")]);
        assert_eq!(first, same.0);
        for other in [
            Binding::new(&caller(2), "jobs", [("status", "error"), ("type", "a")]),
            Binding::new(&caller(1), "files", [("status", "error"), ("type", "a")]),
            Binding::new(&caller(1), "jobs", [("status", "error")]),
            Binding::new(&caller(1), "jobs", [("status", "errort"), ("ype", "a")]),
            Binding::new(&caller(1), "jobs", []),
        ] {
            assert_ne!(first, other.0);
        }
    }

    #[test]
    fn positions_are_exact() {
        let bytes = written([1, -2]);
        assert_eq!(numbers::<2>(&bytes).unwrap(), [1, -2]);
        assert_eq!(numbers::<1>(&bytes).unwrap_err().code, Code::PageTokenInvalid);
        assert!(numbers::<2>(&bytes[1..]).is_err());
    }
}
