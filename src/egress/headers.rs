//! Which request headers a caller may set, and what a header must look like.
//!
//! Pure. Two groups are reserved: framing, which belongs to the client itself, and identity
//! (`webhook-*`, signatures), which belongs to whoever signs; the second may pass through `send`.

use hyper::header::HeaderName;

use super::refusal::Refusal;

const MAX_NAME_BYTES: usize = 128;
const MAX_VALUE_BYTES: usize = 8 * 1024;

const FRAMING: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that a user of the service may not name: framing, and everything a receiver trusts.
pub fn forbidden_header(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    is_framing(&name)
        || name.starts_with("webhook-")
        || name.ends_with("-signature")
        || name.contains("-signature-")
        || matches!(name.as_str(), "signature" | "signature-input")
}

/// Headers that the client writes itself, for anybody.
pub(super) fn is_framing(lower_case: &str) -> bool {
    FRAMING.contains(&lower_case) || lower_case.starts_with("proxy-")
}

/// Is this a header HTTP can carry? Says nothing about who may set it.
pub fn check_header(name: &str, value: &str) -> Result<(), Refusal> {
    let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
    let refuse = |reason| Err(Refusal::HeaderInvalid { name: shown.clone(), reason });
    if name.len() > MAX_NAME_BYTES {
        return refuse("the name is longer than 128 bytes");
    }
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return refuse("a name has only letters, digits and !#$%&'*+-.^_`|~");
    }
    if value.len() > MAX_VALUE_BYTES {
        return refuse("the value is longer than 8192 bytes");
    }
    if value.chars().any(char::is_control) {
        return refuse("the value contains a control character");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names() {
        for name in [
            "Host",
            "Content-Length",
            "Connection",
            "Keep-Alive",
            "Transfer-Encoding",
            "TE",
            "Trailer",
            "Upgrade",
            "Proxy-Authorization",
            "proxy-connection",
            "Expect",
            "Accept-Encoding",
            "webhook-id",
            "Webhook-Signature",
            "Stripe-Signature",
            "X-Hub-Signature-256",
            "Signature",
            " host ",
        ] {
            assert!(forbidden_header(name), "{name}");
        }
        for name in ["Authorization", "Content-Type", "X-Webhook", "User-Agent", "X-Signed-By"] {
            assert!(!forbidden_header(name), "{name}");
        }
        assert!(!is_framing("webhook-id"));
    }

    #[test]
    fn syntax() {
        assert!(check_header("X-Name", "caf\u{e9} 1").is_ok());
        for (name, value) in [
            ("", "v"),
            ("a b", "v"),
            ("a:b", "v"),
            ("n\u{e9}", "v"),
            ("a\r\nb", "v"),
            ("a", "v\r\nb: c"),
            ("a", "v\0"),
            ("a", "\u{85}"),
            ("a", "\u{7f}"),
        ] {
            assert_eq!(
                check_header(name, value).map_err(|r| r.code()),
                Err("header_invalid"),
                "{name:?}"
            );
        }
        assert!(check_header("a", &"v".repeat(8193)).is_err());
        assert!(check_header(&"a".repeat(129), "v").is_err());
    }
}
