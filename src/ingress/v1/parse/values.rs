//! Single values: text, numbers, words, and whatever can be stored.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Place, quoted, short};
use crate::ingress::problem::Problem;

/// What a value is, without saying what it holds.
pub(super) fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Text without U+0000, which not every database can keep.
pub fn text<'a>(raw: &'a RawValue, place: &Place<'_>) -> Result<Cow<'a, str>, Problem> {
    if !raw.get().starts_with('"') {
        return Err(place.wrong(raw, "a string"));
    }
    let text: Text = serde_json::from_str(raw.get()).map_err(|error| place.unreadable(&error))?;
    match text.0.contains('\0') {
        true => Err(place.invalid("contains U+0000")),
        false => Ok(text.0),
    }
}

/// A whole number within bounds. `3.0` is one.
pub fn whole(raw: &RawValue, place: &Place<'_>, least: i64, most: i64) -> Result<i64, Problem> {
    let expected = format!("a whole number from {least} to {most}");
    if kind(raw) != "a number" {
        return Err(place.wrong(raw, expected));
    }
    let exact = raw.get().parse::<i64>().ok();
    let number = exact.or_else(|| {
        let number: f64 = raw.get().parse().ok()?;
        // Beyond 2^53 a float says nothing about which whole number is meant.
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    });
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| place.invalid(format!("is {}; expected {expected}", short(raw.get()))))
}

/// `true` or `false`.
pub fn flag(raw: &RawValue, place: &Place<'_>) -> Result<bool, Problem> {
    match raw.get() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(place.wrong(raw, "true or false")),
    }
}

/// One of few words.
pub fn choice<T: Copy, const N: usize>(
    raw: &RawValue,
    place: &Place<'_>,
    all: [T; N],
    word: fn(T) -> &'static str,
) -> Result<T, Problem> {
    let given = text(raw, place)?;
    all.into_iter().find(|one| word(*one) == given).ok_or_else(|| {
        let allowed = all.map(word).join(", ");
        place.invalid(format!("is {}; allowed: {allowed}", quoted(&given)))
    })
}

/// Whether a text is a plain name: of a-z, 0-9, `.`, `_`, `-`, a letter or digit first.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

/// Any JSON, as a tree that can be stored.
pub fn tree(raw: &RawValue, place: &Place<'_>) -> Result<Value, Problem> {
    let value: Value = serde_json::from_str(raw.get()).map_err(|error| place.unreadable(&error))?;
    match holds_nul(&value) {
        true => Err(place.invalid("contains U+0000")),
        false => Ok(value),
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value))
        }
        _ => false,
    }
}

/// A string that is borrowed where it holds no escapes.
#[derive(PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}
