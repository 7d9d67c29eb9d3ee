//! Percent-encoding of paths and queries, both ways. Must not know what they mean.

/// Decodes; `None` when the result is not UTF-8. A `%` that begins no encoding stands for itself.
pub fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high * 16 + low);
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            (b'+', _) if plus_is_space => decoded.push(b' '),
            _ => decoded.push(first),
        }
    }
    String::from_utf8(decoded).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Encodes all but unreserved characters and those of `keep`.
pub fn encode(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if unreserved || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        for (text, plus, decoded) in [
            ("a%20b", false, Some("a b")),
            ("a+b", false, Some("a+b")),
            ("a+b", true, Some("a b")),
            ("%2fa%2F", false, Some("/a/")),
            ("100%", false, Some("100%")),
            ("%zz%4", false, Some("%zz%4")),
            ("%C3%BC", false, Some("\u{fc}")),
            ("%FF", false, None),
            ("%00", false, Some("\0")),
        ] {
            assert_eq!(decode(text, plus).as_deref(), decoded, "{text}");
        }
    }

    #[test]
    fn what_was_encoded_decodes_to_itself() {
        let text = "/a b/\u{fc}%2F+?#&";
        assert_eq!(encode(text, b"/"), "/a%20b/%C3%BC%252F%2B%3F%23%26");
        assert_eq!(decode(&encode(text, b"/"), false).as_deref(), Some(text));
    }
}
