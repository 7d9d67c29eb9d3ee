//! Strict reading of JSON bodies: what is not known is refused by name, what is wrong by place.
//!
//! A body is read one object at a time, and its members stay text until somebody asks for them;
//! so errors know where they are and what is kept is kept byte for byte. Problems repeat numbers,
//! and text only where a word, an id or a time should be: other text may be a secret.

mod values;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::ids::{Timestamp, parse_id};
use crate::ingress::problem::{Code, Problem};
use values::{Text, kind};
pub use values::{choice, flag, is_name, text, tree, whole};

/// Where a value stands in the body.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Member(&'a str),
    Item(usize),
}

impl<'a> Place<'a> {
    /// The body itself.
    pub const ROOT: Place<'static> = Place { parent: None, step: Step::Root };

    /// A member of the object here.
    pub fn member(&'a self, name: &'a str) -> Place<'a> {
        Place { parent: Some(self), step: Step::Member(name) }
    }

    /// An item of the list here.
    pub fn item(&'a self, place: usize) -> Place<'a> {
        Place { parent: Some(self), step: Step::Item(place) }
    }

    /// As a JSON Pointer.
    pub fn pointer(&self) -> String {
        let mut pointer = self.parent.map(Place::pointer).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Member(name) => {
                pointer.push('/');
                pointer.push_str(&short(name).replace('~', "~0").replace('/', "~1"));
            }
            Step::Item(place) => pointer.push_str(&format!("/{place}")),
        }
        pointer
    }

    /// As people write it: `jobs[3].callback.url`.
    pub fn shown(&self) -> String {
        let before = self.parent.map(Place::shown).unwrap_or_default();
        match self.step {
            Step::Root => before,
            Step::Member(name) if before.is_empty() => short(name),
            Step::Member(name) => format!("{before}.{}", short(name)),
            Step::Item(place) => format!("{before}[{place}]"),
        }
    }

    /// A problem with the value here; `text` goes on after its name.
    pub fn problem(&self, code: Code, text: impl fmt::Display) -> Problem {
        let shown = self.shown();
        let detail = match shown.is_empty() {
            true => format!("the body {text}"),
            false => format!("`{shown}` {text}"),
        };
        Problem::new(code, detail).at_pointer(self.pointer())
    }

    /// A value that cannot be taken.
    pub fn invalid(&self, text: impl fmt::Display) -> Problem {
        self.problem(Code::InvalidRequest, text)
    }

    fn wrong(&self, raw: &RawValue, expected: impl fmt::Display) -> Problem {
        self.invalid(format!("is {}; expected {expected}", kind(raw)))
    }

    /// A text that JSON allows and we do not: a half of a surrogate pair, or nesting without end.
    fn unreadable(&self, error: &serde_json::Error) -> Problem {
        self.problem(Code::InvalidJson, format!("cannot be read: {error}, counted from its start"))
    }
}

/// Names that callers invented are shown up to a length.
fn short(name: &str) -> String {
    match name.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// A text that was given, in quotes, up to a length, with control characters escaped.
pub fn quoted(text: &str) -> String {
    format!("{:?}", short(text))
}

/// The JSON of a body.
pub fn body(bytes: &[u8]) -> Result<&RawValue, Problem> {
    let refuse = |text: String| Problem::new(Code::InvalidJson, text);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        refuse(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    if text.trim().is_empty() {
        return Err(refuse("the body is empty; send a JSON object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| refuse(format!("the body is not JSON: {error}")))
}

/// The object of a body that may be left out.
pub fn optional<'a>(
    bytes: &'a [u8],
    known: &[&str],
) -> Result<Option<Object<'a, 'static>>, Problem> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Object::read(body(bytes)?, &Place::ROOT, known).map(Some)
}

/// The items of a list.
pub fn items<'a>(
    raw: &'a RawValue,
    place: &Place<'_>,
    least: usize,
    most: usize,
) -> Result<Vec<&'a RawValue>, Problem> {
    if !raw.get().starts_with('[') {
        return Err(place.wrong(raw, "a list"));
    }
    let items: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|error| place.unreadable(&error))?;
    if items.len() < least || items.len() > most {
        let text = format!("has {} items; allowed: {least} to {most}", items.len());
        return Err(place.invalid(text));
    }
    Ok(items)
}

/// Members in their order, as text.
pub struct Members<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

impl<'a> Members<'a> {
    /// The members of an object of whatever names, `most` at most, each once.
    pub fn read(raw: &'a RawValue, place: &Place<'_>, most: usize) -> Result<Members<'a>, Problem> {
        let members = Members::parse(raw, place)?;
        let count = members.0.len();
        if count > most {
            return Err(place.invalid(format!("has {count} members; allowed: {most} at most")));
        }
        members.check_distinct(place)?;
        Ok(members)
    }

    fn parse(raw: &'a RawValue, place: &Place<'_>) -> Result<Members<'a>, Problem> {
        if !raw.get().starts_with('{') {
            return Err(place.wrong(raw, "an object"));
        }
        serde_json::from_str(raw.get()).map_err(|error| place.unreadable(&error))
    }

    /// Compares each with each, so there must be few of them, or few different ones.
    fn check_distinct(&self, place: &Place<'_>) -> Result<(), Problem> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if self.0.iter().take(index).any(|(other, _)| other == name) {
                return Err(place.member(&name.0).invalid("is given twice"));
            }
        }
        Ok(())
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, raw)| (&*name.0, *raw))
    }
}

/// An object whose members are all known. `null` counts as absent.
pub struct Object<'a, 'p> {
    /// Where it stands.
    pub place: &'p Place<'p>,
    members: Members<'a>,
}

impl<'a, 'p> Object<'a, 'p> {
    /// Reads an object that may have members of these names only.
    pub fn read(
        raw: &'a RawValue,
        place: &'p Place<'p>,
        known: &[&str],
    ) -> Result<Object<'a, 'p>, Problem> {
        let members = Members::parse(raw, place)?;
        if let Some((name, _)) = members.iter().find(|(name, _)| !known.contains(name)) {
            let text = match known {
                [] => "is not known; this object has no members".to_owned(),
                _ => format!("is not known; allowed: {}", known.join(", ")),
            };
            return Err(place.member(name).problem(Code::UnknownField, text));
        }
        members.check_distinct(place)?;
        Ok(Object { place, members })
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.members.iter().find(|(known, _)| *known == name);
        found.map(|(_, raw)| raw).filter(|raw| raw.get() != "null")
    }

    /// The value of a member of a merge patch: nothing when it is absent and stays as it is,
    /// nothing inside when it is null and goes.
    pub fn patched(&self, name: &str) -> Option<Option<&'a RawValue>> {
        let found = self.members.iter().find(|(known, _)| *known == name);
        found.map(|(_, raw)| Some(raw).filter(|raw| raw.get() != "null"))
    }

    /// The value of a member that must be there.
    pub fn required(&self, name: &str) -> Result<&'a RawValue, Problem> {
        self.get(name).ok_or_else(|| self.place.member(name).invalid("is required"))
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Problem> {
        self.get(name).map(|raw| text(raw, &self.place.member(name))).transpose()
    }

    /// A whole number within bounds.
    pub fn integer(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Problem> {
        self.get(name).map(|raw| whole(raw, &self.place.member(name), least, most)).transpose()
    }

    /// A number within bounds.
    pub fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, Problem> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        let place = self.place.member(name);
        let expected = format!("a number from {least} to {most}");
        if kind(raw) != "a number" {
            return Err(place.wrong(raw, expected));
        }
        let number = raw.get().parse().ok().filter(|number| (least..=most).contains(number));
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(place.invalid(format!("is {}; expected {expected}", short(raw.get())))),
        }
    }

    /// An instant, cut to the milliseconds that answers show.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let time = text.parse::<Timestamp>().ok().filter(|time| has_four_digits(*time));
        let time = time.ok_or_else(|| {
            let expected = "an RFC 3339 time such as 2026-01-31T12:00:00.000Z";
            let text = format!("is {}; expected {expected}", quoted(&text));
            self.place.member(name).invalid(text)
        })?;
        Ok(Some(Timestamp(time.0.div_euclid(1_000) * 1_000)))
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.get(name).map(|raw| flag(raw, &self.place.member(name))).transpose()
    }

    /// An id.
    pub fn id(&self, name: &str) -> Result<Option<Uuid>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let id = parse_id(&text).ok_or_else(|| {
            let text = format!("is {}; expected a UUID", quoted(&text));
            self.place.member(name).invalid(text)
        })?;
        Ok(Some(id))
    }
}

/// Whether the time's year in UTC can be written as RFC 3339 has it.
fn has_four_digits(time: Timestamp) -> bool {
    use chrono::Datelike;
    (0..=9999).contains(&time.to_datetime().year())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
