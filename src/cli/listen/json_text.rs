//! JSON laid out anew: indented for people, or on one line.
//!
//! Members keep their order and numbers their digits, which reading into a tree and writing again
//! would not keep. Must not know what the JSON says.

use std::iter::Peekable;
use std::str::Chars;

/// Deeper levels are not indented further, or a few brackets would make pages of blanks.
const DEEPEST_INDENT: usize = 16;

/// JSON on many lines, each after `margin`. The text must be valid JSON.
pub(super) fn indented(json: &str, margin: &str) -> String {
    lay_out(json, Some(margin))
}

/// JSON on one line. The text must be valid JSON.
pub(super) fn on_one_line(json: &str) -> String {
    lay_out(json, None)
}

fn lay_out(json: &str, margin: Option<&str>) -> String {
    let mut text = String::with_capacity(json.len());
    let mut depth = 0usize;
    let new_line = |text: &mut String, depth: usize| {
        if let Some(margin) = margin {
            text.push('\n');
            text.push_str(margin);
            (0..depth.min(DEEPEST_INDENT)).for_each(|_| text.push_str("  "));
        }
    };
    text.push_str(margin.unwrap_or_default());
    let mut rest = json.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '"' => copy_string(&mut rest, &mut text),
            '{' | '[' => {
                text.push(character);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(',');
                new_line(&mut text, depth);
            }
            ':' => text.push_str(if margin.is_some() { ": " } else { ":" }),
            white if white.is_ascii_whitespace() => {}
            other => text.push(other),
        }
    }
    text
}

/// Up to and with the closing quote; the opening one has been read.
fn copy_string(rest: &mut Peekable<Chars<'_>>, text: &mut String) {
    text.push('"');
    while let Some(character) = rest.next() {
        match character {
            '"' => break,
            '\\' => {
                text.push('\\');
                text.extend(rest.next());
            }
            // JSON allows some of them as they are; a terminal would obey them.
            control if control.is_control() => {
                text.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_digits_stay() {
        let json = "{\"b\":[1.50,{}, [ ] ],\n\"a\" : {\"x\":\"a, \\\"b\\\" {\\\\\"}}";
        let people = "  {\n    \"b\": [\n      1.50,\n      {},\n      []\n    ],\n    \
                      \"a\": {\n      \"x\": \"a, \\\"b\\\" {\\\\\"\n    }\n  }";
        assert_eq!(indented(json, "  "), people);
        let line = "{\"b\":[1.50,{},[]],\"a\":{\"x\":\"a, \\\"b\\\" {\\\\\"}}";
        assert_eq!(on_one_line(json), line);
        assert_eq!(on_one_line(people), line);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(on_one_line("\"\u{9b}31m\u{7f}é\""), r#""\u009b31m\u007fé""#);
    }

    #[test]
    fn deep_nesting_costs_no_pages() {
        let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
        assert!(indented(&deep, "").len() < 100_000);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
            failure_persistence: None,
            ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn it_stays_the_same_json(text in "\\PC*", number in -1e9..1e9) {
            let value = serde_json::json!({"a": [text, number, {}, []], "b": {"c": null}});
            for laid_out in [indented(&value.to_string(), "  "), on_one_line(&value.to_string())] {
                let read: serde_json::Value = serde_json::from_str(&laid_out).unwrap();
                proptest::prop_assert_eq!(&read, &value);
            }
        }
    }
}
