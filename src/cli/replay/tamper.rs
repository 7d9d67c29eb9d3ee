//! Spoiling a signed webhook in one way, so that only a receiver that checks will notice.
//!
//! Every signature of every kind is spoiled alike: whichever the receiver looks at must not hold.
//! Must not know how signatures are made.

use serde::de::IgnoredAny;

use super::Webhook;

/// What to spoil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Tamper {
    /// One byte of the body; it stays JSON
    Body,
    /// One character of each signature
    Signature,
    /// The time: the one that is sent is a second before the one that was signed
    Timestamp,
}

/// Changes a signed webhook; none when there is nothing to change.
pub(super) fn spoil(webhook: &mut Webhook, part: Tamper) -> Option<()> {
    match part {
        Tamper::Body => webhook.body = other_body(&webhook.body)?,
        Tamper::Signature => {
            change(webhook, "webhook-signature", |value| each(value, ' ', spoiled_standard))?;
            change(webhook, "ringback-signature", |value| each(value, ',', spoiled_hex));
        }
        Tamper::Timestamp => {
            change(webhook, "webhook-timestamp", earlier)?;
            change(webhook, "ringback-signature", |value| each(value, ',', earlier_hex));
        }
    }
    Some(())
}

fn change(webhook: &mut Webhook, name: &str, spoiled: impl Fn(&str) -> String) -> Option<()> {
    let header = webhook.headers.iter_mut().find(|(known, _)| *known == name)?;
    header.1 = spoiled(&header.1).into();
    Some(())
}

fn each(value: &str, separator: char, spoiled: impl Fn(&str) -> String) -> String {
    let parts: Vec<String> = value.split(separator).map(spoiled).collect();
    parts.join(separator.encode_utf8(&mut [0; 4]))
}

/// `v1,<base64>`
fn spoiled_standard(part: &str) -> String {
    match part.split_once(',') {
        Some((version, signature)) => format!("{version},{}", other_start(signature)),
        None => part.to_owned(),
    }
}

/// `v1=<hex>`, beside `t=<seconds>`
fn spoiled_hex(part: &str) -> String {
    match part.split_once('=') {
        Some((name, signature)) if name != "t" => format!("{name}={}", other_start(signature)),
        _ => part.to_owned(),
    }
}

fn earlier_hex(part: &str) -> String {
    part.strip_prefix("t=").map_or_else(|| part.to_owned(), |time| format!("t={}", earlier(time)))
}

/// Within every receiver's tolerance, so that only the signature can tell.
fn earlier(seconds: &str) -> String {
    seconds.parse::<i64>().map_or_else(|_| seconds.to_owned(), |time| (time - 1).to_string())
}

/// A digit for a digit: both alphabets have these.
fn other_start(signature: &str) -> String {
    let mut characters = signature.chars();
    let other = if characters.next() == Some('0') { '1' } else { '0' };
    format!("{other}{}", characters.as_str())
}

/// The same JSON but for one letter or digit, as near to the end as can be: what is there is a
/// value more often than a name.
fn other_body(body: &str) -> Option<String> {
    let bytes = body.as_bytes();
    (0..bytes.len()).rev().find_map(|at| {
        let other = match *bytes.get(at)? {
            b'a' | b'A' | b'0' => b'1',
            byte if byte.is_ascii_alphanumeric() => byte - 1,
            _ => return None,
        };
        let mut changed = bytes.to_vec();
        *changed.get_mut(at)? = other;
        let changed = String::from_utf8(changed).ok()?;
        serde_json::from_str::<IgnoredAny>(&changed).ok()?;
        Some(changed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(body: &str) -> Webhook {
        let headers = [
            ("webhook-signature", "v1,0aaa= v1a,bbbb="),
            ("ringback-signature", "t=1000,v1=0f,v1=a0"),
            ("webhook-timestamp", "1000"),
        ];
        let headers = headers.map(|(name, value)| (name, value.into())).to_vec();
        Webhook { headers, body: body.to_owned() }
    }

    fn spoiled(body: &str, part: Tamper) -> (Vec<String>, String) {
        let mut webhook = webhook(body);
        spoil(&mut webhook, part).unwrap();
        (webhook.headers.into_iter().map(|header| header.1.into_owned()).collect(), webhook.body)
    }

    #[test]
    fn every_signature_is_spoiled_and_nothing_else() {
        assert_eq!(
            spoiled("{}", Tamper::Signature),
            (
                ["v1,1aaa= v1a,0bbb=", "t=1000,v1=1f,v1=00", "1000"].map(str::to_owned).to_vec(),
                "{}".to_owned()
            )
        );
    }

    #[test]
    fn the_time_moves_within_the_tolerance_in_every_header() {
        let times = ["v1,0aaa= v1a,bbbb=", "t=999,v1=0f,v1=a0", "999"].map(str::to_owned).to_vec();
        assert_eq!(spoiled("{}", Tamper::Timestamp), (times, "{}".to_owned()));
    }

    #[test]
    fn one_byte_of_the_body_changes_and_it_stays_json() {
        for (body, changed) in [
            (r#"{"a": "b"}"#, r#"{"a": "a"}"#),
            (r#"{"a": true, "b": 10}"#, r#"{"a": true, "b": 11}"#),
            (r#"{"a": [true, null]}"#, r#"{"1": [true, null]}"#),
            (r#"{"a": -0}"#, r#"{"a": -1}"#),
            ("{\"a\": \"\\u00e9 é\"}\n", "{\"a\": \"\\u00e8 é\"}\n"),
        ] {
            assert_eq!(spoiled(body, Tamper::Body).1, changed);
            assert!(serde_json::from_str::<serde_json::Value>(changed).is_ok());
        }
        assert!(spoil(&mut webhook("{}"), Tamper::Body).is_none());
    }
}
