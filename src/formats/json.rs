//! Putting JSON together from pieces that already are JSON, without a tree in between.
//!
//! A rendered job can be large and is written on every event, so formats copy its text as it is.
//!
//! Must not know: what the pieces mean.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A string that displays as a JSON string, quotes included.
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut written = 0;
        for (at, byte) in self.0.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            f.write_str(&self.0[written..at])?;
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                _ => write!(f, "\\u{byte:04x}")?,
            }
            written = at + 1;
        }
        f.write_str(&self.0[written..])?;
        f.write_char('"')
    }
}

/// The members of a JSON object in their order, the values as text.
pub struct Members<'a>(pub Vec<(String, Cow<'a, str>)>);

impl<'a> Members<'a> {
    /// Takes an object apart one level deep; `None` when the text is no object.
    pub fn read(json: &'a str) -> Option<Members<'a>> {
        serde_json::from_str(json).ok()
    }

    /// The value of a member, to look at or to replace.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Cow<'a, str>> {
        self.0.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The object put together again.
    pub fn write(&self) -> String {
        let size = self.0.iter().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>();
        let mut out = String::with_capacity(size + 2);
        for (key, value) in &self.0 {
            out.push(if out.is_empty() { '{' } else { ',' });
            // Writing into a String has no way to fail.
            let _ = write!(out, "{}:{value}", Text(key));
        }
        if out.is_empty() {
            out.push('{');
        }
        out.push('}');
        out
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, Cow<'de, str>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((key, Cow::Borrowed(value.get())));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(InOrder).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
            failure_persistence: None,
            ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn a_text_reads_back_as_itself(text in ".*|[\u{0}-\u{7f}]*") {
            let json = Text(&text).to_string();
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn members_keep_order_and_text() {
        let json = r#"{"z":1.50,"a":{"b" : [1, 2]},"q\"":null}"#;
        let mut members = Members::read(json).unwrap();
        assert_eq!(members.write(), json);
        *members.get_mut("z").unwrap() = Cow::Borrowed("2");
        assert_eq!(members.write(), r#"{"z":2,"a":{"b" : [1, 2]},"q\"":null}"#);
        assert_eq!(Members::read(" {} ").unwrap().write(), "{}");
        assert!(Members::read("[1]").is_none());
    }
}
