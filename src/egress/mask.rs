//! A URL as it may be shown: what looks like a credential becomes `***`, all else stays as it is.
//!
//! Pure, and made for texts that need not be URLs at all, because error messages show those too.
//! It may mask too much, never too little: whoever needs the URL itself keeps it elsewhere, sealed.
//! Paths are shown; a credential in a path cannot be told from a name.

/// What stands for a value that is not shown.
pub const MASK: &str = "***";

/// A parameter with one of these anywhere in its name, in any case.
const TELLING: &[&str] = &[
    "auth", "bearer", "code", "cred", "hmac", "jwt", "key", "pass", "pwd", "sas", "secret",
    "session", "sig", "token",
];
/// A parameter with exactly this name.
const TELLING_ALONE: &[&str] = &["hdnea", "hdnts", "otp", "pin", "pw", "sid"];
/// Names that merely contain one of the words above.
const HARMLESS: &[&str] = &[
    "author", "authors", "codec", "codecs", "compass", "design", "encode", "keyword", "keywords",
    "postcode",
];

/// The text with user name, password and the values of parameters that look like credentials
/// replaced by `***`. Masking twice changes nothing more.
pub fn mask_url_credentials(text: &str) -> String {
    let (mut masked, rest) = without_userinfo(text);
    let (before, fragment) = split_before(rest, '#');
    let (place, query) = split_before(before, '?');
    masked.push_str(place);
    for part in [query, fragment] {
        if let Some(mark) = part.chars().next() {
            masked.push(mark);
            mask_parameters(&part[mark.len_utf8()..], &mut masked);
        }
    }
    masked
}

/// Whether a URL holds `***` where a credential was masked: it is one that was shown, and would lead
/// nowhere.
pub fn holds_mask(url: &str) -> bool {
    let (before, fragment) = split_before(url, '#');
    let (place, query) = split_before(before, '?');
    let parameters = [query, fragment];
    let mut values = parameters.iter().flat_map(|part| part.split(['?', '#', '&', ';']));
    place.contains(&format!("{MASK}@"))
        || values.any(|pair| pair.split_once('=').is_some_and(|(_, value)| value == MASK))
}

/// Splits in front of the mark; the second part begins with it, or is empty.
fn split_before(text: &str, mark: char) -> (&str, &str) {
    text.split_at(text.find(mark).unwrap_or(text.len()))
}

/// A masked beginning, and what follows it as it is. Lenient as URL parsers are: any number of
/// slashes of either kind.
fn without_userinfo(text: &str) -> (String, &str) {
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return after_last_at("", text);
    };
    let rest_start = text.len() - rest.trim_start_matches(['/', '\\']).len();
    let slashes = rest_start > scheme.len() + 1;
    let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    if !slashes && !web {
        // `user:password@host` without a scheme.
        return after_last_at("", text);
    }
    let (prefix, rest) = text.split_at(rest_start);
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    if let Some(at) = authority.rfind('@') {
        return (format!("{prefix}{MASK}@"), &rest[at + 1..]);
    }
    // A port that is none is part of a password, such as that of `user:pass/word@host`.
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    if !port.ends_with(']') && !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return after_last_at(prefix, rest);
    }
    (String::new(), text)
}

/// For what is no URL but may hold a password: everything before the last `@` goes.
fn after_last_at<'a>(prefix: &str, text: &'a str) -> (String, &'a str) {
    match text.rfind('@') {
        Some(at) => (format!("{prefix}{MASK}@"), &text[at + 1..]),
        None => (prefix.to_owned(), text),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// `name=value` pairs. Some servers also separate them by `;`, so both readings are masked.
fn mask_parameters(text: &str, masked: &mut String) {
    for (place, part) in text.split('&').enumerate() {
        if place > 0 {
            masked.push('&');
        }
        let mut at = 0;
        let end = part.split_inclusive(';').find_map(|pair| {
            let start = at;
            at += pair.len();
            let (name, value) = pair.split_once('=')?;
            (is_telling(name) && !value.trim_end_matches(';').is_empty())
                .then_some(start + name.len() + 1)
        });
        match end {
            Some(end) => {
                masked.push_str(&part[..end]);
                masked.push_str(MASK);
            }
            None => masked.push_str(part),
        }
    }
}

fn is_telling(name: &str) -> bool {
    let name = decoded(name).to_ascii_lowercase();
    if HARMLESS.contains(&name.as_str()) {
        return false;
    }
    TELLING.iter().any(|word| name.contains(word)) || TELLING_ALONE.contains(&name.as_str())
}

/// `%74oken` is `token` to the server; what is no such escape stays.
fn decoded(name: &str) -> String {
    let mut pieces = name.split('%');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&piece[2..]);
            }
            None => {
                text.push('%');
                text.push_str(piece);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_masked_and_nothing_else() {
        for (text, shown) in [
            ("https://example.com/a?b=c", "https://example.com/a?b=c"),
            ("https://example.com/a?Token=x&b=%20c&d", "https://example.com/a?Token=***&b=%20c&d"),
            ("https://h/?a=1&apiKey=x=y&b=2#z", "https://h/?a=1&apiKey=***&b=2#z"),
            (
                "https://b.s3/k?X-Amz-Date=1&X-Amz-Credential=a%2Fb&X-Amz-Signature=s&X-Amz-Expires=9",
                "https://b.s3/k?X-Amz-Date=1&X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Expires=9",
            ),
            (
                "https://h/?X-Goog-Signature=s&X-Goog-Date=1",
                "https://h/?X-Goog-Signature=***&X-Goog-Date=1",
            ),
            ("https://a.blob/c?sv=1&SIG=a%2B", "https://a.blob/c?sv=1&SIG=***"),
            ("https://h/?%74oken=x&access%5Ftoken=y", "https://h/?%74oken=***&access%5Ftoken=***"),
            ("https://h/?sig=a;b;c&d=e", "https://h/?sig=***&d=e"),
            ("https://h/?a=1;password=x;b=2", "https://h/?a=1;password=***"),
            ("https://h/#access_token=x&a=b", "https://h/#access_token=***&a=b"),
            ("https://h/?author=x&codec=y&keyword=z", "https://h/?author=x&codec=y&keyword=z"),
            ("https://h/?token=&secret", "https://h/?token=&secret"),
            ("https://h/npm/pkg@1.0/x?y=a@b", "https://h/npm/pkg@1.0/x?y=a@b"),
            ("https://h:8443/pkg@1.0", "https://h:8443/pkg@1.0"),
            ("https://[::1]:80/pkg@1", "https://[::1]:80/pkg@1"),
        ] {
            assert_eq!(mask_url_credentials(text), shown);
            assert_eq!(mask_url_credentials(shown), shown);
        }
    }

    #[test]
    fn user_names_and_passwords_never_show() {
        for text in [
            "https://marker@h/a",
            "https://user:marker@h/a@b",
            "https://u:marker@x@h/",
            "HTTPS:/u:marker@h/",
            "https:u:marker@h",
            "https:\\\\u:marker@h\\",
            "user:marker@h",
            "marker@h/path",
            "https://u:marker/x@h/",
            "https://u:marker?x@h/",
            "u:#marker@h/",
            "ftp://u:marker@h/",
            "h\nttps://u:marker@h/",
            "https://u:marker@[::1]/",
            "https://user@h/?token=marker",
        ] {
            let shown = mask_url_credentials(text);
            assert!(!shown.contains("marker") && shown.contains(MASK), "{shown}");
            assert_eq!(mask_url_credentials(&shown), shown);
        }
        assert_eq!(mask_url_credentials("https://u:p@h/a@b"), "https://***@h/a@b");
    }

    #[test]
    fn a_masked_url_is_known_as_one() {
        for url in [
            "https://user:password@example.com/",
            "https://example.com/hook?token=1",
            "https://example.com/hook?a=1&secret=2#b",
            "https://example.com/hook#sig=3",
        ] {
            assert!(!holds_mask(url), "{url}");
            assert!(holds_mask(&mask_url_credentials(url)), "{url}");
        }
        for url in ["https://example.com/a***b", "https://example.com/?q=a***b", "https://h/***"] {
            assert!(!holds_mask(url), "{url}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
            failure_persistence: None,
            ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn any_text_is_masked_once_for_all(text in "(\\PC|[:/?#@&;=%\\\\]|token|http){0,60}") {
            let once = mask_url_credentials(&text);
            proptest::prop_assert_eq!(mask_url_credentials(&once), once);
        }
    }
}
