//! The Stripe-style signature: `t=<unix seconds>,v1=<hex>`, for receivers that check that one.
//!
//! Must not know: header names; the format that offers it has one.

use std::fmt::Write;

use hmac::{KeyInit, Mac};

use super::secret::HmacSha256;

/// The header value. The signed text is `t.body`, and the key is the *whole* secret text with its
/// prefix, not decoded: that is what Stripe's libraries do. One `v1` per active secret, the current
/// first. No space after the commas: those libraries refuse it.
pub fn sign_hex<'a>(
    secret_texts: impl IntoIterator<Item = &'a str>,
    timestamp_seconds: i64,
    body: &str,
) -> String {
    let time = timestamp_seconds.to_string();
    let mut value = String::with_capacity(160);
    // Writing into a String has no way to fail.
    let _ = write!(value, "t={time}");
    for text in secret_texts {
        // HMAC takes keys of every length, so no secret is ever skipped.
        let Ok(mut mac) = HmacSha256::new_from_slice(text.as_bytes()) else {
            continue;
        };
        mac.update(time.as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        value.push_str(",v1=");
        for byte in mac.finalize().into_bytes() {
            let _ = write!(value, "{byte:02x}");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vectors {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        secrets: Vec<String>,
        timestamp: i64,
        body: String,
        header: String,
    }

    fn vectors() -> Vec<Case> {
        let text = include_str!("../../fixtures/signatures/stripe.json");
        serde_json::from_str::<Vectors>(text).unwrap().cases
    }

    #[test]
    fn signatures_match_the_vectors() {
        for case in vectors() {
            let secrets = case.secrets.iter().map(String::as_str);
            assert_eq!(sign_hex(secrets, case.timestamp, &case.body), case.header);
        }
    }

    #[test]
    fn rotation_adds_a_second_signature() {
        let case = &vectors()[0];
        let both = sign_hex([&*case.secrets[0], "older"], case.timestamp, &case.body);
        assert!(both.starts_with(&case.header));
        assert_eq!(both.matches(",v1=").count(), 2);
        assert!(!both.contains(' '));
    }
}
